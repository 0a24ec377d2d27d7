// Clients of another user do everything that their descriptors allow, and more: the exchange lives, and nobody else loses an
// event or waits for long (F23 to F28, F46).
#include "tests/processes/attacker.hpp"
#include "tools/common/histogram.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

constexpr std::size_t attackers = 3;
constexpr std::uint64_t pause_us = 500;  // between events of a pair that measures

// Connections and bells. (The cursor file of an anonymous publisher stays for the next one.)
std::size_t sockets_of(pid_t process) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/fd")) {
    std::error_code gone;
    const std::string what = std::filesystem::read_symlink(entry.path(), gone);
    if (what.starts_with("socket:")) ++count;
  }
  return count;
}

std::size_t files_of(const std::string& directory, const std::string& prefix) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory + "/" + bus_name)) {
    if (entry.path().filename().string().starts_with(prefix)) ++count;
  }
  return count;
}

// One event at a time, from publish to take, each the one that must come, at its first attempt. Asked for so many
// milliseconds it answers with the latencies; asked for 0 it ends.
void measure(const std::string& directory, Channel& channel) {
  Bus bus = open_bus(directory);
  Publisher publisher = bus.publisher({.name = "measured"});
  Subscriber subscriber = bus.subscribe({.name = "measured", .patterns = {"measured"}});
  channel.send({{"ready", true}});
  std::uint64_t sequence = 0;
  while (true) {
    const auto ms = channel.expect(1h, "how long").at("ms").get<std::uint64_t>();
    if (ms == 0) break;
    tools::Histogram latencies;
    const std::int64_t end_ns = now_ns() + static_cast<std::int64_t>(ms) * 1'000'000;
    while (now_ns() < end_ns) {
      const std::int64_t begin_ns = now_ns();
      require(publisher.publish_wait("measured", as_bytes(std::to_string(++sequence)), patience) == Outcome::ok,
              "publish");
      auto delivery = subscriber.take(patience);
      require(delivery.has_value(), "event " + std::to_string(sequence) + " did not come");
      latencies.record(static_cast<std::uint64_t>(now_ns() - begin_ns));
      require(delivery->sequence() == sequence && delivery->attempt() == 1, "another event came");
      const Bytes payload = delivery->payload();
      require(
          std::string_view(reinterpret_cast<const char*>(payload.data()), payload.size()) == std::to_string(sequence),
          "its bytes are others");
      require(delivery->ack() == Outcome::ok, "ack");
      ::usleep(pause_us);
    }
    channel.send({{"latencies", latencies.to_json()}});
  }
  require(subscriber.flush(patience) == Outcome::ok, "flush");
  channel.send({{"events", sequence}});
  (void)channel.expect(1h, "the end");
}

// Batches without a pause, until it is told to end; then the number of the last event.
void publish_steadily(const std::string& directory, Channel& channel) {
  Bus bus = open_bus(directory);
  Publisher publisher = bus.publisher({.name = "steady"});
  channel.send({{"ready", true}});
  std::uint64_t sequence = 0;
  while (!channel.receive(1ms)) {
    for (int i = 0; i < 20; ++i) {
      ++sequence;
      require(publisher.publish_wait("steady", as_bytes(std::to_string(sequence)), patience) == Outcome::ok, "publish");
    }
  }
  require(publisher.flush(patience) == Outcome::ok, "flush");
  channel.send({{"events", sequence}});
  (void)channel.expect(1h, "the end");
}

void subscribe_steadily(const std::string& directory, Channel& channel) {
  Bus bus = open_bus(directory);
  Subscriber subscriber = bus.subscribe({.name = "steady", .patterns = {"steady"}});
  channel.send({{"ready", true}});
  std::uint64_t sequence = 0;
  std::uint64_t last = ~std::uint64_t{0};
  while (sequence != last) {
    if (auto delivery = subscriber.take(20ms)) {
      require(delivery->sequence() == ++sequence && delivery->attempt() == 1, "another event came");
      require(delivery->ack() == Outcome::ok, "ack");
    } else if (last == ~std::uint64_t{0}) {
      if (const auto told = channel.receive(1ms)) last = told->at("last").get<std::uint64_t>();
    }
  }
  require(subscriber.flush(patience) == Outcome::ok, "flush");
  channel.send({{"events", sequence}});
  (void)channel.expect(1h, "the end");
}

// What takes the attackers' place on the processors while there is no attack, so that it is the exchange that is compared.
void spin() {
  if (::nice(19) == -1 && errno != 0) return;
  for (volatile std::uint64_t turns = 0;;) turns = turns + 1;
}

void attack(const std::string& directory, std::uint64_t seed, Channel& channel) {
  (void)!::nice(19);  // its own processor time is the operator's to limit
  Attacker attacker(directory, seed);
  attacker.become_somebody_else();
  while (!channel.receive(0ms)) attacker.attack();
  channel.send({{"attacks", attacker.attacks()}, {"answers", attacker.answers()}});
}

tools::Histogram latencies(Child& pair, std::uint64_t ms) {
  pair.channel().send({{"ms", ms}});
  return tools::Histogram::from_json(
      pair.channel().expect(std::chrono::milliseconds(ms) + patience, "the latencies").at("latencies"));
}

}  // namespace

TEST_CASE("whatever hostile clients do, the exchange lives and the others lose nothing and hardly wait") {
  const std::uint64_t seconds = std::max<std::uint64_t>(amount("ACKRING_HOSTILE_SECONDS", 8), 3);
  const std::uint64_t seed = amount("ACKRING_SEED", std::random_device{}());
  MESSAGE("ACKRING_SEED=" << seed);
  const bool foreign = ::geteuid() == 0;
  if (!foreign) MESSAGE("not root: the attackers are of the exchange's own user, who is not limited");
  if (!raise_descriptors(4096)) return;
  const TemporaryDirectory temporary("hostile");
  const std::vector<std::string> open_to_all = {"--socket-mode", "0666"};
  std::optional<ExchangeProcess> exchange(std::in_place, temporary.path(), open_to_all);

  Child measured = Child::start("measured", [&](Channel& channel) { measure(temporary.path(), channel); });
  (void)measured.channel().expect(patience, "the pair that measures");
  Child taking = Child::start("taking", [&](Channel& channel) { subscribe_steadily(temporary.path(), channel); });
  (void)taking.channel().expect(patience, "the subscriber");
  Child publishing = Child::start("publishing", [&](Channel& channel) { publish_steadily(temporary.path(), channel); });
  (void)publishing.channel().expect(patience, "the publisher");

  tools::Histogram calm;
  {
    std::vector<Child> load;
    for (std::size_t i = 0; i < attackers; ++i) load.push_back(Child::start("load", [](Channel&) { spin(); }));
    (void)latencies(measured, 300);
    calm = latencies(measured, std::clamp<std::uint64_t>(seconds * 250, 1'000, 30'000));
    for (Child& child : load) ::kill(child.pid(), SIGKILL);
  }
  const std::size_t sockets = sockets_of(exchange->pid());

  std::vector<Child> hostile;
  for (std::size_t i = 0; i < attackers; ++i) {
    hostile.push_back(
        Child::start("attacker", [&, i](Channel& channel) { attack(temporary.path(), seed + i, channel); }));
  }
  const tools::Histogram attacked = latencies(measured, seconds * 750);
  CHECK(run({program("ACKRING_SHMTOOL"), "--dir", temporary.path(), "--bus", bus_name, "ping"}).status == 0);
  check_books(shm_stat(temporary.path()));
  // A successor finds what they have left in their files, while they go on.
  exchange->kill();
  check_books(shm_stat(temporary.path()));  // of the dead bus: from its files
  exchange.emplace(temporary.path(), open_to_all);
  (void)latencies(measured, seconds * 250);

  std::uint64_t attacks = 0;
  std::uint64_t answers = 0;
  for (Child& child : hostile) {
    child.channel().send({{"stop", true}});
    const Json told = child.channel().expect(4 * patience, "an attacker");  // fails where something was let through
    attacks += told.at("attacks").get<std::uint64_t>();
    answers += told.at("answers").get<std::uint64_t>();
  }
  hostile.clear();
  publishing.channel().send({{"stop", true}});
  const auto published = publishing.channel().expect(patience, "the publisher").at("events").get<std::uint64_t>();
  taking.channel().send({{"last", published}});
  CHECK(taking.channel().expect(patience, "the subscriber").at("events") == published);
  measured.channel().send({{"ms", 0}});
  const auto exchanged =
      measured.channel().expect(patience, "the pair that measures").at("events").get<std::uint64_t>();

  const Json stat = shm_stat(temporary.path());
  check_books(stat);
  for (const auto& [name, events] : {std::pair{"steady", published}, std::pair{"measured", exchanged}}) {
    const Json row = row_of(stat, "subscriptions", name);
    CHECK(row.at("acked") == events);
    CHECK(row.at("redelivered") == 0);
    CHECK(row.at("invalid_acks") == 0);
    CHECK(row.at("members") == 1);
    CHECK(row_of(stat, "publishers", name).at("routed") == events);
  }
  // What was theirs goes with them: three clients are left.
  CHECK(eventually([&] { return files_of(temporary.path(), "client.") == 3; }));
  CHECK(eventually([&] { return sockets_of(exchange->pid()) == sockets; }));

  const double p99 = static_cast<double>(attacked.percentile(99)) / static_cast<double>(calm.percentile(99));
  MESSAGE(attacks << " attacks, " << answers << " answers; " << exchanged << " and " << published
                  << " events of others; p50 " << calm.percentile(50) / 1000 << " -> " << attacked.percentile(50) / 1000
                  << " us, p99 " << calm.percentile(99) / 1000 << " -> " << attacked.percentile(99) / 1000 << " us ("
                  << p99 << " x), max " << calm.max() / 1000 << " -> " << attacked.max() / 1000 << " us");
  CHECK(attacks > attackers);
  if (foreign && seconds >= 60) CHECK(p99 <= 1.5);  // on a machine that does nothing else
  for (Child* child : {&measured, &taking, &publishing}) child->channel().send({{"end", true}});
  CHECK(exchange->stop() == 0);
}
