// Control messages, of several clients, in any order, to a real service of a real exchange; beside them a publisher and a
// member that have nothing to do with it and lose nothing. An input is lines: a digit is a client, which sends the rest
// of the line as it is; see `step` for what comes instead of a message.
#include <dirent.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <array>
#include <csignal>
#include <optional>

#include "lib/exchange/service.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace ackring;
using control::Json;
using control::Message;
using control::ReceiveStatus;
using control::Socket;

constexpr std::uint64_t ms = 1'000'000;
constexpr const char* witness_name = "witness-5e0c";  // what the others can't name, they can't purge or pause
constexpr const char* witness_topic = "w5e0c.events";

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  REQUIRE(folder != nullptr);
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

// Rings of a gigabyte are allowed, but of no use here: files end at 8 MiB, and what asks for more gets an error.
void bound_files() {
  static const bool once = [] {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 8u << 20;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return true;
  }();
  (void)once;
}

struct TestClient {
  Socket socket;
  int served_as = -1;  // the other end
  std::size_t descriptors_next = 0;
  std::vector<shm::UniqueFd> held;  // what it was given, the lock on its file among it
};

class Fixture {
 public:
  Fixture() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    world_.now_ns = time_.time_ns;
    start_service(0);
    publisher_.emplace(world_.publisher(witness_name));
    SubscriptionOptions options;
    options.ring_bytes = 64 << 10;
    options.max_in_flight = 256;
    member_.emplace(world_.member(witness_name, {witness_topic}, options));
  }

  void step(std::string_view line) {
    if (!line.empty() && line[0] >= '0' && line[0] <= '3') {
      TestClient& client = clients_[static_cast<std::size_t>(line[0] - '0')];
      line.remove_prefix(1);
      if (line == "^") {  // it dies: everything is closed
        client = TestClient{};
      } else if (line == "~") {  // its connection ends, its lock stays
        client.socket.close();
        client.served_as = -1;
      } else if (line.starts_with(">")) {  // its next message carries descriptors
        client.descriptors_next = line.size() > 1 ? static_cast<std::size_t>(line[1]) % 12 : 1;
      } else if (line.starts_with("+")) {  // a message that is looked at together with its next one
        send(client, line.substr(1));
      } else {
        converse(client, line);
      }
    } else if (line.starts_with("!")) {  // time goes by
      time_.time_ns += ms * (line.size() > 1 ? static_cast<unsigned char>(line[1]) : 5);
      world_.now_ns = time_.time_ns;
      world_.x->tick(world_.now_ns);
      service_->tick(0);
    } else if (line == "%") {  // the exchange ends and another one starts
      service_->close_all();
      service_.reset();
      world_.restart();
      for (TestClient& client : clients_) client.served_as = -1;
      start_service(world_.client);
    }
    serve_all();
    witness();
  }

  // Everybody goes; then nothing holds up the witness any more.
  void end() {
    for (TestClient& client : clients_) client = TestClient{};
    serve_all();
    service_->tick(0);
    for (std::size_t i = 0; i < world_.x->queues().size(); ++i) {
      exchange::Queue* queue = world_.x->queues()[i].get();
      if (queue != nullptr && queue->options.name != witness_name) world_.x->remove_subscription(*queue);
    }
    witness();
    check_books();
    CHECK(seen_ == published_);
    const auto row = test::row_of(world_.stat(), witness_name);
    CHECK(row["matched"].get<std::uint64_t>() == published_);
    CHECK(row["acked"].get<std::uint64_t>() == published_);
  }

 private:
  // The witness comes first, so that nobody can take its place.
  void start_service(std::uint64_t resumed) {
    service_ = std::make_unique<exchange::Service>(*world_.directory, *world_.x, "fuzzed", epoll_.get());
    connect(witness_);
    const Json hello{
        {"id", 1}, {"op", "hello"}, {"layout", shm::layout_version}, {"membarrier", true}, {"client", resumed}};
    REQUIRE(witness_.socket.send(hello) == control::SendStatus::sent);
    service_->serve(witness_.served_as);
    Message answer;
    std::string reason;
    REQUIRE(witness_.socket.receive(answer, reason) == ReceiveStatus::message);
    world_.client = answer.body.at("client").get<std::uint64_t>();
    for (shm::UniqueFd& fd : answer.descriptors) witness_.held.push_back(std::move(fd));
  }

  static bool send(TestClient& client, std::string_view bytes) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 12)> control{};
    const std::size_t count = std::exchange(client.descriptors_next, 0);
    if (count > 0) {
      const std::vector<int> fds(count, 0);
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
      std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * count);
    }
    return ::sendmsg(client.socket.fd(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
  }

  void connect(TestClient& client) {
    auto [ours, theirs] = Socket::make_pair();
    client.socket = std::move(ours);
    client.served_as = theirs.fd();
    service_->accept(std::move(theirs), 0);  // at a time that does not go on: nobody is closed for silence
  }

  // One message and what it is answered with: for an object with an id, that or the end of the connection; for one
  // without, nothing or the end; for anything else, the end. The end gives its reason.
  void converse(TestClient& client, std::string_view text) {
    if (client.served_as < 0) connect(client);
    drain(client);
    if (client.served_as < 0) connect(client);
    const std::size_t descriptors = client.descriptors_next;
    if (!send(client, text)) return;
    const Json message = text.find('\0') == std::string_view::npos
                             ? Json::parse(text.begin(), text.end(), nullptr, false)
                             : Json(Json::value_t::discarded);
    service_->serve(client.served_as);
    CAPTURE(text);
    Message answer;
    std::string reason;
    ReceiveStatus status = client.socket.receive(answer, reason);
    if (status == ReceiveStatus::message && is_refusal(answer.body)) {
      CHECK(client.socket.receive(answer, reason) == ReceiveStatus::closed);
      client.socket.close();
      client.served_as = -1;
      return;
    }
    REQUIRE(message.is_object());
    CHECK(descriptors == 0);
    const bool wants_answer = message.contains("id") && !message["id"].is_null();
    if (!wants_answer) {
      CHECK(status == ReceiveStatus::nothing_yet);
      return;
    }
    if (status == ReceiveStatus::closed) {  // the answer with this id was larger than a message
      CHECK(message["id"].dump().size() > 32'000);
      client.socket.close();
      client.served_as = -1;
      return;
    }
    REQUIRE(status == ReceiveStatus::message);
    check_answer(answer.body, message);
    for (shm::UniqueFd& fd : answer.descriptors) client.held.push_back(std::move(fd));
    CHECK(client.socket.receive(answer, reason) == ReceiveStatus::nothing_yet);
  }

  // The end of a connection, with a reason.
  static bool is_refusal(const Json& body) {
    if (body.contains("id") || body.value("ok", true)) return false;
    CHECK(body.at("code") == "protocol");
    CHECK_FALSE(body.at("why").get<std::string>().empty());
    return true;
  }

  static void check_answer(const Json& body, const Json& request) {
    INFO(body.dump());
    CHECK(body.at("id") == request.at("id"));
    if (body.at("ok").get<bool>()) return;
    CHECK_FALSE(body.at("code").get<std::string>().empty());
    CHECK_FALSE(body.at("why").get<std::string>().empty());
    CHECK_FALSE(body.at("object").get<std::string>().empty());
  }

  // Reads what came of messages that were sent without waiting.
  static void drain(TestClient& client) {
    Message answer;
    std::string reason;
    for (;;) {
      const ReceiveStatus status = client.socket.receive(answer, reason);
      if (status == ReceiveStatus::nothing_yet) return;
      if (status != ReceiveStatus::message) {
        client.socket.close();
        client.served_as = -1;
        return;
      }
      for (shm::UniqueFd& fd : answer.descriptors) client.held.push_back(std::move(fd));
    }
  }

  // What the host's loop does: all descriptors that something happened to, until nothing does.
  void serve_all() {
    std::array<epoll_event, 16> events;
    for (int rounds = 0; rounds < 64; ++rounds) {
      const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
      if (count <= 0) return;
      for (int i = 0; i < count; ++i) {
        const std::uint64_t what = events[static_cast<std::size_t>(i)].data.u64;
        const std::uint64_t number = what & 0xffff'ffff;
        switch (static_cast<exchange::Source>(what >> 32)) {
          case exchange::Source::client:
            service_->serve(static_cast<int>(number));
            break;
          case exchange::Source::publisher:
            service_->rang_publisher(number);
            break;
          case exchange::Source::queue:
            service_->rang_queue(number >> 16, number & 0xffff);
            break;
          default:
            FAIL("an event of nothing");
        }
      }
      for (TestClient& client : clients_) {
        if (client.served_as >= 0) drain(client);
      }
    }
  }

  void witness() {
    if (publisher_->publish(witness_topic, "event " + std::to_string(published_ + 1))) ++published_;
    test::Seen seen;
    for (int round = 0; round < 3; ++round) {
      world_.run();
      while (member_->take(seen)) {
        ++seen_;
        CHECK(seen.payload == "event " + std::to_string(seen_));
        CHECK(seen.attempt == 1);
        member_->verdict(seen.entry, ring::Verdict::ack);
      }
      time_.time_ns += ms;
      world_.now_ns = time_.time_ns;
      world_.x->tick(world_.now_ns);
    }
  }

  void check_books() { (void)world_.stat(); }

  fuzz::VirtualTime time_;
  shm::UniqueFd epoll_;
  test::World world_;
  std::unique_ptr<exchange::Service> service_;
  std::array<TestClient, 4> clients_;
  std::optional<test::CorePublisher> publisher_;
  std::optional<test::CoreMember> member_;
  std::uint64_t published_ = 0;
  std::uint64_t seen_ = 0;
  TestClient witness_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bound_files();
  static const std::size_t first = [] {  // what the library opens once is open from here on
    Fixture fixture;
    fixture.end();
    return 0;
  }();
  (void)first;
  const std::size_t before = open_descriptors();
  {
    Fixture fixture;
    std::string_view rest(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 16u << 10));
    for (int lines = 0; !rest.empty() && lines < 64; ++lines) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      fixture.step(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    fixture.end();
  }
  CHECK(open_descriptors() == before);
  return 0;
}
