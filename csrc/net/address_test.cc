#include "net/address.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mindserve::net {
namespace {

const std::string kWhat = "Serving gRPC server";
const std::string kIllegal = "' is illegal: expected 'host:port', '[IPv6]:port' or 'unix:path'";

std::string Error(const std::string& text) {
  const auto address = ParseAddress(text, kWhat);
  if (address.ok()) return "parsed: " + address->ToString();
  EXPECT_EQ(address.status().code(), Code::kInvalidArgument);
  return address.status().message();
}

TEST(AddressTest, ParsesHostsAndPorts) {
  struct Case {
    std::string text;
    std::string host;
    uint16_t port;
  };
  for (const Case& c :
       {Case{"127.0.0.1:5500", "127.0.0.1", 5500}, Case{"localhost:1", "localhost", 1},
        Case{"my-host_1.example.com:65535", "my-host_1.example.com", 65535}, Case{"[::1]:5500", "::1", 5500},
        Case{"[::]:80", "::", 80}, Case{"[fe80::1%eth0]:80", "fe80::1%eth0", 80}, Case{"0.0.0.0:0", "0.0.0.0", 0}}) {
    const auto address = ParseAddress(c.text, kWhat);
    ASSERT_TRUE(address.ok()) << address.status().ToString();
    EXPECT_FALSE(address->unix_socket);
    EXPECT_EQ(address->host, c.host);
    EXPECT_EQ(address->port, c.port);
    EXPECT_EQ(address->ToString(), c.text);
  }
}

TEST(AddressTest, ParsesUnixPaths) {
  struct Case {
    std::string text;
    std::string path;
  };
  for (const Case& c : {Case{"unix:a", "a"}, Case{"unix:a/b.sock", "a/b.sock"}, Case{"unix:/tmp/a", "/tmp/a"},
                        Case{"unix:///tmp/a", "/tmp/a"}, Case{"unix:a:5500", "a:5500"}}) {
    const auto address = ParseAddress(c.text, kWhat);
    ASSERT_TRUE(address.ok()) << address.status().ToString();
    EXPECT_TRUE(address->unix_socket);
    EXPECT_EQ(address->path, c.path);
    EXPECT_EQ(address->ToString(), "unix:" + c.path);
  }
}

TEST(AddressTest, RefusesWhatHasNoHostOrNoPort) {
  const std::vector<std::string> texts = {"",
                                          ":",
                                          "5500",
                                          "localhost",
                                          "localhost:",
                                          ":5500",
                                          "localhost:http",
                                          "localhost:55a",
                                          "localhost:+5",
                                          "::1:5500",
                                          "[::1]",
                                          "[::1]5500",
                                          "[::1:5500",
                                          "::1]:5500",
                                          "[localhost]:5500",
                                          "[]:5500",
                                          "a b:5500",
                                          "host/:5500",
                                          "http://host:5500",
                                          "localhost:-",
                                          "localhost:5500 ",
                                          "unix://host/path",
                                          "unix:dir/"};
  for (const std::string& text : texts) {
    EXPECT_EQ(Error(text), "The format of the Serving gRPC server address '" + text + kIllegal);
  }
  EXPECT_EQ(ParseAddress("nowhere", "RESTful server").status().message(),
            "The format of the RESTful server address 'nowhere" + kIllegal);
  EXPECT_EQ(Error(std::string("unix:a\0b", 8)),
            "The format of the Serving gRPC server address '" + std::string("unix:a\0b", 8) + kIllegal);
}

TEST(AddressTest, RefusesPortsOutOfRange) {
  for (const std::string& port : std::vector<std::string>{"65536", "-1", "70000", "99999999999999999999999999"}) {
    EXPECT_EQ(Error("localhost:" + port),
              "The port of the Serving gRPC server address 'localhost:" + port + "' is out of legal range [1 ~ 65535]");
  }
}

TEST(AddressTest, RefusesEmptyAndLongUnixPaths) {
  EXPECT_EQ(Error("unix:"), "Empty grpc server unix domain socket address");
  const std::string longest(107, 'a');
  EXPECT_TRUE(ParseAddress("unix:" + longest, kWhat).ok());
  EXPECT_EQ(Error("unix:a" + longest),
            "The path 'a" + longest + "' of a unix domain socket has 108 bytes, at most 107 are possible");
}

}  // namespace
}  // namespace mindserve::net
