// What the tests of the control socket share: a peer that sends whatever it likes, and a look at what is received.
#pragma once

#include <dirent.h>
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ackring/error.hpp"
#include "lib/control/socket.hpp"

namespace socket_test {

using namespace ackring;
using namespace ackring::control;
using shm::UniqueFd;

inline constexpr std::uint64_t second_ns = 1'000'000'000;

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  REQUIRE(folder != nullptr);
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

struct TemporaryFolder {
  TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path() / "ackring-socket-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path;
};

// Sends bytes as they are, with copies of one descriptor, as a broken or hostile client may.
inline bool send_raw(const Socket& socket, std::string_view bytes, std::size_t descriptors = 0) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 64)> control{};
  if (descriptors > 0) {
    const std::vector<int> fds(descriptors, 0);
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
    std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * descriptors);
  }
  return ::sendmsg(socket.fd(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

inline ReceiveStatus receive_status(Socket& socket, std::string* why = nullptr) {
  Message message;
  std::string reason;
  const ReceiveStatus status = socket.receive(message, reason);
  if (status != ReceiveStatus::message) {
    CHECK(message.body.is_null() == (status != ReceiveStatus::no_room));
    CHECK(message.descriptors.empty());
  }
  if (status == ReceiveStatus::malformed || status == ReceiveStatus::closed) CHECK_FALSE(reason.empty());
  if (why != nullptr) *why = reason;
  return status;
}

inline ErrorCode connect_code(const std::string& path) {
  try {
    Socket::connect(path);
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find(path) != std::string::npos);
    return error.code();
  }
  FAIL("connected to " << path);
  return ErrorCode::system;
}

inline std::string nested(std::size_t depth) {
  std::string text = "{\"a\":";
  text += std::string(depth - 1, '[') + std::string(depth - 1, ']');
  return depth == 1 ? "{}" : text + '}';
}

}  // namespace socket_test
