# Outside libraries, from the system's packages. Names of the packages: docs/install.md.

find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(ZLIB REQUIRED)

find_package(PkgConfig REQUIRED)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2>=1.40)

# Releases before 3 have no pkg-config file. The CMake file takes any other minor version than the one asked for as wrong,
# so none is.
add_library(simdjson INTERFACE)
pkg_check_modules(SIMDJSON IMPORTED_TARGET simdjson>=1.0)
if(SIMDJSON_FOUND)
  target_link_libraries(simdjson INTERFACE PkgConfig::SIMDJSON)
else()
  find_package(simdjson CONFIG REQUIRED)
  target_link_libraries(simdjson INTERFACE simdjson::simdjson)
endif()

# Header-only, and found by a header, since not every distribution ships a CMake or pkg-config file.
find_path(PROTOZERO_INCLUDE protozero/pbf_reader.hpp REQUIRED)
add_library(protozero INTERFACE)
target_include_directories(protozero SYSTEM INTERFACE ${PROTOZERO_INCLUDE})

if(MINDSERVE_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
