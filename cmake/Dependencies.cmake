# Outside libraries, from the system's packages. Names of the packages: docs/install.md.

find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(ZLIB REQUIRED)

find_package(PkgConfig REQUIRED)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2>=1.40)

# Header-only: found by a header, since not every distribution ships a CMake or pkg-config file.
function(mindserve_header_only target header)
  find_path(${target}_INCLUDE ${header} REQUIRED)
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${${target}_INCLUDE})
endfunction()
mindserve_header_only(asio asio.hpp)
target_compile_definitions(asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED)
mindserve_header_only(protozero protozero/pbf_reader.hpp)

if(MINDSERVE_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
