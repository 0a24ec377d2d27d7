// Times that decide are the monotonic clock's: the exchange's wall clock may jump by ten years (F16), and a PID may mean
// something else to each side (F15).
#include "tests/processes/support.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <memory>

using namespace ackring;
using namespace ackring::test;

namespace {

const char* const unshare_program = "/usr/bin/unshare";
constexpr std::int64_t ten_years_s = 10LL * 365 * 86'400;

// The wall clock of programs that are started while it is there.
class WallClock {
 public:
  explicit WallClock(const std::string& file) {
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(::ftruncate(fd, sizeof(std::int64_t)) == 0);
    shift_ =
        static_cast<std::int64_t*>(::mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ::close(fd);
    REQUIRE(shift_ != MAP_FAILED);
    ::setenv("ACKRING_CLOCK_SHIFT", file.c_str(), 1);
    ::setenv("LD_PRELOAD", program("ACKRING_CLOCK_SHIFT_LIBRARY").c_str(), 1);
  }
  WallClock(const WallClock&) = delete;
  WallClock& operator=(const WallClock&) = delete;
  ~WallClock() {
    ::unsetenv("LD_PRELOAD");
    ::munmap(shift_, sizeof(std::int64_t));
  }
  void set(std::int64_t seconds) { *static_cast<volatile std::int64_t*>(shift_) = seconds; }

 private:
  std::int64_t* shift_ = nullptr;
};

// One event in each place from which time may move it, all in an hour; and one that time moves soon, when it is told to.
void wait_for_all_times(Channel& channel, const std::string& directory) {
  Bus bus = open_bus(directory);
  Subscriber held = bus.subscribe({.name = "held", .patterns = {"held"}, .ack_timeout = 1h});
  Subscriber nacked = bus.subscribe({.name = "nacked", .patterns = {"nacked"}, .retry_delays = {1h}});
  Subscriber soon =
      bus.subscribe({.name = "soon", .patterns = {"soon"}, .ack_timeout = 100ms, .retry_delays = {100ms}});
  bus.create_subscription({.name = "lives", .patterns = {"lives"}, .ttl = 1h});
  bus.create_subscription({.name = "later", .patterns = {"later"}});
  Publisher publisher = bus.publisher();
  for (const char* topic : {"held", "nacked", "lives"}) require(publisher.publish(topic, "x") == Outcome::ok, topic);
  require(publisher.publish("later", as_bytes("x"), {.delay = 1h}) == Outcome::ok, "later");
  require(publisher.flush(patience) == Outcome::ok, "flush");
  auto delivery = held.take(patience);
  auto failed = nacked.take(patience);
  require(delivery && failed && failed->nack() == Outcome::ok && nacked.flush(patience) == Outcome::ok, "take");
  channel.send({{"ready", true}});
  while (!channel.expect(4 * patience, "the next round").contains("end")) {
    require(publisher.publish("soon", "x") == Outcome::ok, "publish");
    const std::int64_t start = now_ns();
    auto first = soon.take(patience);
    require(first && first->attempt() == 1, "the first attempt");
    auto second = soon.take(patience);  // without a verdict of the first one: timed out, backed off, back again
    require(second && second->attempt() == 2, "the second attempt");
    const std::int64_t took = now_ns() - start;
    require(second->ack() == Outcome::ok && soon.flush(patience) == Outcome::ok, "ack");
    channel.send({{"took_ms", static_cast<double>(took) / 1e6}});
  }
}

}  // namespace

TEST_CASE("the exchange's wall clock jumps by ten years in both directions: no time-out moves (F16)") {
  const TemporaryDirectory temporary("clock");
  WallClock wall_clock(temporary.path() + "-shift");
  auto exchange = std::make_unique<ExchangeProcess>(temporary.path());
  Child client = Child::start("client", [&](Channel& channel) { wait_for_all_times(channel, temporary.path()); });
  client.channel().expect(patience, "the events");
  int round = 0;
  for (const std::int64_t shift_s : {ten_years_s, -ten_years_s, std::int64_t{0}}) {
    CAPTURE(shift_s);
    wall_clock.set(shift_s);
    const double uptime_s = shm_stat(temporary.path()).at("exchange").at("uptime_s");
    CHECK(uptime_s >= 0);
    CHECK(uptime_s < 2 * ten_years_s);
    if (++round == 2) {  // and a restart in a year that is not that of its predecessor
      exchange->kill();
      exchange = std::make_unique<ExchangeProcess>(temporary.path());
    }
    client.channel().send({{"go", true}});
    const double took_ms = client.channel().expect(patience, "what times out").at("took_ms");
    CHECK(took_ms >= 180);  // the time-out and the delay, 200 ms, less the jitter of neither
    const Json stat = shm_stat(temporary.path());
    check_books(stat);
    if (round == 1) CHECK(stat.at("exchange").at("uptime_s").get<double>() > ten_years_s / 2);  // it did jump
    CHECK(row_of(stat, "subscriptions", "held").at("in_flight") == 1);
    CHECK(row_of(stat, "subscriptions", "nacked").at("retry_waiting") == 1);
    CHECK(row_of(stat, "subscriptions", "lives").at("queued") == 1);
    CHECK(row_of(stat, "subscriptions", "lives").at("expired") == 0);
    CHECK(row_of(stat, "subscriptions", "later").at("queued") == 1);
    CHECK(row_of(stat, "subscriptions", "soon").at("timed_out") == round);
  }
  client.channel().send({{"end", true}});
  CHECK(client.wait(patience) == 0);
  CHECK(exchange->stop() == 0);
  std::filesystem::remove(temporary.path() + "-shift");
}

TEST_CASE(
    "exchange and client in PID namespaces of their own: both are process 1, and a kernel lock tells who lives (F15)") {
  if (::geteuid() != 0 || run({unshare_program, "--pid", "--fork", "/bin/true"}).status != 0) {
    MESSAGE("skipped: it needs the right to make PID namespaces");
    return;
  }
  const TemporaryDirectory temporary("namespaces");
  const std::vector<std::string> bus = {"--dir", temporary.path(), "--bus", bus_name};
  // `unshare` waits for the process 1 of the new namespace, and kills it when it is killed itself.
  const auto apart = [&](const char* what, std::vector<std::string> arguments) {
    std::vector<std::string> command = {unshare_program, "--pid", "--fork", "--kill-child", program(what)};
    command.insert(command.end(), bus.begin(), bus.end());
    command.insert(command.end(), arguments.begin(), arguments.end());
    return Child::execute(command);
  };
  Child exchange = apart("ACKRING_EXCHANGE", {});
  const auto line = [](const std::string& text) { return text.ends_with('\n'); };
  REQUIRE(read_output(exchange.output_fd(), line).starts_with("ready "));
  CHECK(shm_stat(temporary.path()).at("exchange").at("pid") == 1);
  // Process 1 of this machine is alive, and so is that of any namespace: neither means anything.
  Child second = apart("ACKRING_EXCHANGE", {});
  CHECK(second.wait(patience) == 3);
  for (int i = 0; i < 3; ++i) {
    Child member = apart("ACKRING_SHMTOOL", {"sub", "--name", "s", "#"});
    CHECK(eventually([&] {
      const Json stat = shm_stat(temporary.path());
      return !stat.at("subscriptions").empty() && row_of(stat, "subscriptions", "s").at("members") == 1;
    }));
    ::kill(member.pid(), SIGKILL);
    CHECK(eventually([&] { return row_of(shm_stat(temporary.path()), "subscriptions", "s").at("members") == 0; }));
  }
  ::kill(exchange.pid(), SIGKILL);
  exchange.wait(patience);
  CHECK(eventually([&] {
    const Ran ran = run({program("ACKRING_SHMTOOL"), "--dir", temporary.path(), "--bus", bus_name, "ping"});
    return ran.status != 0;
  }));
  const ExchangeProcess next(temporary.path());
  CHECK(shm_stat(temporary.path()).at("exchange").at("pid") == next.pid());
}
