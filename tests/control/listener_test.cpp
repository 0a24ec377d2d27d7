#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/control/socket.hpp"
#include "tests/control/socket_peer.hpp"

using namespace socket_test;

TEST_CASE("listen and connect; a stale socket is replaced; mode, group and credentials") {
  const TemporaryFolder folder;
  const std::string path = folder.path + "/exchange.sock";
  CHECK(connect_code(path) == ErrorCode::no_exchange);
  CHECK(connect_code(folder.path + "/missing/exchange.sock") == ErrorCode::no_exchange);
  Listener listener(path, 0600, -1);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode));
  CHECK((status.st_mode & 0777) == 0600);
  CHECK_FALSE(listener.accept());
  Socket client = Socket::connect(path);
  std::optional<Socket> server = listener.accept();
  REQUIRE(server);
  CHECK(client.send({{"op", "hello"}}) == SendStatus::sent);
  CHECK(receive_status(*server) == ReceiveStatus::message);
  CHECK((::fcntl(server->fd(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((::fcntl(client.fd(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK(server->credentials().pid == ::getpid());
  CHECK(client.credentials().uid == ::getuid());

  listener.close();
  CHECK(std::filesystem::exists(path));
  CHECK(connect_code(path) == ErrorCode::no_exchange);
  const mode_t old_mask = ::umask(0777);  // the mode asked for counts, not the umask
  const gid_t group = ::getgid();
  Listener second(path, 0660, static_cast<int>(group));
  ::umask(old_mask);
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0660);
  CHECK(status.st_gid == group);
  const Socket again = Socket::connect(path);
  CHECK(second.accept());
  // Nothing but the socket is left in the directory.
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), std::filesystem::directory_iterator()) == 1);
}

TEST_CASE("another group can be given (as root)") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: needs root");
    return;
  }
  const TemporaryFolder folder;
  const std::string path = folder.path + "/exchange.sock";
  const Listener listener(path, 0660, 1);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_gid == 1);
}

TEST_CASE("setup that is refused names the path, and leaves what is there alone") {
  const TemporaryFolder folder;
  const std::string path = folder.path + "/exchange.sock";
  ::close(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  try {
    Listener listener(path, 0600, -1);
    FAIL("replaced a file that is no socket");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::system);
    CHECK(std::string(error.what()).find(path) != std::string::npos);
  }
  CHECK(std::filesystem::is_regular_file(path));
  CHECK(connect_code(path) == ErrorCode::no_exchange);
  CHECK_THROWS_AS(Listener(folder.path + "/missing/exchange.sock", 0600, -1), Error);
  CHECK_THROWS_AS(Listener(folder.path + '/' + std::string(200, 'x'), 0600, -1), Error);
}

TEST_CASE("a path longer than sun_path works") {
  const TemporaryFolder folder;
  std::string deep = folder.path;
  for (int i = 0; i < 5; ++i) deep += '/' + std::string(60, static_cast<char>('a' + i));
  std::filesystem::create_directories(deep);
  const std::string path = deep + "/exchange.sock";
  REQUIRE(path.size() > sizeof(sockaddr_un::sun_path));
  CHECK(connect_code(path) == ErrorCode::no_exchange);
  const std::size_t before = open_descriptors();
  {
    Listener listener(path, 0600, -1);
    const Socket client = Socket::connect(path);
    CHECK(listener.accept());
    CHECK(std::filesystem::is_socket(path));
  }
  CHECK(open_descriptors() == before);
  // Also at the border, where the name itself fits and its temporary name does not.
  for (std::size_t size = sizeof(sockaddr_un::sun_path) - 8; size < sizeof(sockaddr_un::sun_path) + 3; ++size) {
    const std::string border = folder.path + "/" + std::string(size - folder.path.size() - 1, 's');
    Listener listener(border, 0600, -1);
    const Socket client = Socket::connect(border);
    CHECK_MESSAGE(listener.accept(), size);
  }
}

TEST_CASE("no descriptor left: the newcomer is told and closed, nobody else is touched (F21)") {
  const TemporaryFolder folder;
  const std::string path = folder.path + "/exchange.sock";
  Listener listener(path, 0600, -1);
  Socket old_client = Socket::connect(path);
  std::optional<Socket> old_server = listener.accept();
  REQUIRE(old_server);
  std::vector<Socket> newcomers;
  for (int i = 0; i < 3; ++i) newcomers.push_back(Socket::connect(path));
  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &old_limit) == 0);
  const int next = ::dup(0);
  ::close(next);
  rlimit full = old_limit;
  full.rlim_cur = static_cast<rlim_t>(next);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &full) == 0);
  CHECK_FALSE(listener.accept());
  // A message with a descriptor that there is no room for: its text comes, and why the descriptor does not.
  CHECK(old_client.send({{"op", "descriptor"}}, {0}) == SendStatus::sent);
  std::string reason;
  CHECK(receive_status(*old_server, &reason) == ReceiveStatus::no_room);
  CHECK(reason.find("room") != std::string::npos);
  CHECK(old_client.send({{"op", "ping"}}) == SendStatus::sent);
  CHECK(receive_status(*old_server) == ReceiveStatus::message);
  CHECK(old_server->send({{"ok", true}}) == SendStatus::sent);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &old_limit) == 0);
  for (Socket& newcomer : newcomers) {
    Message message;
    REQUIRE(newcomer.receive(message, reason) == ReceiveStatus::message);
    CHECK(message.body.at("ok") == false);
    CHECK(message.body.at("code") == "no_space");
    CHECK(receive_status(newcomer) == ReceiveStatus::closed);
  }
  CHECK_FALSE(listener.accept());
  const Socket later = Socket::connect(path);
  CHECK(listener.accept());
}

TEST_CASE("an exchange that does not accept: connect gives up with an answer") {
  const TemporaryFolder folder;
  const std::string path = folder.path + "/stalled.sock";
  const UniqueFd stalled(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  REQUIRE(::bind(stalled.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(stalled.get(), 0) == 0);
  const Socket queued = Socket::connect(path);
  CHECK(connect_code(path) == ErrorCode::timeout);
}
