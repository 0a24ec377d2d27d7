// An exchange that starts on a directory in which anything may be damaged. It serves what is sound, with the rest set aside
// and told, or refuses with an error; what it serves, it serves: a newcomer loses nothing, all operations end, and it
// starts again. The input says how far the exchange before it came, and what is done to its files.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <vector>

#include "ackring/error.hpp"
#include "lib/exchange/attempt.hpp"
#include "lib/exchange/dead_letter_files.hpp"
#include "lib/exchange/inspect.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace ackring;
using exchange::Exchange;
using Directory = shm::MemoryDirectory;

constexpr std::uint64_t ms = 1'000'000;
constexpr std::size_t largest_file = 4u << 20;

struct Died {};

// Counts stores, and ends the exchange before one of them.
class Killer final : public shm::EnvironmentHook {
 public:
  explicit Killer(std::size_t at) : at_(at) {
    virtual_time = true;
    shm::Environment::hook = this;
  }
  ~Killer() override { shm::Environment::hook = nullptr; }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;
  void before_store(const void* /*where*/, std::size_t /*bytes*/) override {
    if (++stores == at_) throw Died{};
  }
  std::uint64_t now_ns() override { return 1'000 * ms; }
  std::size_t stores = 0;

 private:
  std::size_t at_;
};

SubscriptionOptions small_options() {
  SubscriptionOptions options;
  options.ring_bytes = 4096;
  options.max_in_flight = 8;
  options.ack_timeout = std::chrono::milliseconds(10);
  options.backoff_initial = options.backoff_max = std::chrono::milliseconds(20);
  options.max_deliveries = 2;
  return options;
}

void create(Exchange& x, const std::string& name, const std::string& pattern, SubscriptionOptions options) {
  options.name = name;
  options.patterns = {pattern};
  x.create_subscription(options, false);
}

// A bus with something in every place: rings, backlogs, retries, dead letters, an ingress ring that was not read.
void live(test::World& world) {
  SubscriptionOptions options = small_options();
  create(*world.x, "offline", "e.#", options);
  create(*world.x, "@last", "e.#", {});
  create(*world.x, "@ids", "e.#", {});
  options.dead_letter_topic = "letters.plain";
  test::CoreMember plain = world.member("plain", {"e.#"}, options);
  options.dead_letter_topic.clear();
  options.guarantee = Guarantee::at_most_once;
  test::CoreMember once = world.member("once", {"e.a"}, options);
  options = small_options();
  options.group = options.ordered_by_key = true;
  test::CoreMember first = world.member("group", {"e.#"}, options);
  test::CoreMember second = world.member("group", {"e.#"}, options);
  create(*world.x, "letters", "letters.#", small_options());
  test::CorePublisher a = world.publisher("a");
  test::CorePublisher b = world.publisher("", 4096);
  test::Seen seen;
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 4; ++i) {
      const shm::TimingInfo later{0, i == 3 ? world.now_ns + 200 * ms : 0};
      a.add(i % 2 == 0 ? "e.a" : "e.b", "payload", "key " + std::to_string(i), later);
      b.add("e.c", std::string(static_cast<std::size_t>(40 * i), 'b'));
    }
    a.commit();
    b.commit();
    world.tick(12 * ms);
    int count = 0;
    for (test::CoreMember* member : {&plain, &once, &first, &second}) {
      for (int takes = 0; takes < 3 && member->take(seen); ++takes) {
        if (++count % 4 == 1) member->verdict(seen.entry, ring::Verdict::ack);
        if (count % 4 == 2) member->nack(seen.entry, 1);
        if (count % 4 == 3) member->reject(seen.entry, "because");
      }
    }
  }
  world.tick(12 * ms);
  a.publish("e.a", "not read");
}

// What exchanges that died at one of several points, or not at all, left behind.
const Directory& image(std::size_t which) {
  static constexpr std::size_t images = 8;
  static std::array<std::shared_ptr<Directory>, images> made;
  static const std::size_t stores = [] {
    Killer killer(0);
    test::World world;
    live(world);
    return killer.stores;
  }();
  which %= images;
  if (!made[which]) {
    // Late points, where there is much; each at another step of a transaction.
    Killer killer(which == 0 ? 0 : stores - stores * which / 12 - 7 * which);
    test::World world;
    made[which] = world.directory;
    try {
      live(world);
    } catch (const Died&) {
    }
  }
  return *made[which];
}

std::size_t bytes_of(int fd) {
  struct stat status {};
  REQUIRE(::fstat(fd, &status) == 0);
  return static_cast<std::size_t>(status.st_size);
}

void write_at(int fd, std::size_t at, const void* bytes, std::size_t count) {
  REQUIRE(::pwrite(fd, bytes, count, static_cast<off_t>(at)) == static_cast<ssize_t>(count));
}

// One thing that happens to a file.
void damage(Directory& directory, fuzz::Input& input) {
  const std::vector<std::string> names = directory.list("");
  if (names.empty()) return;
  const std::uint8_t how = input.byte();
  const std::string& name = names[input.below(names.size())];
  const shm::UniqueFd file = directory.open(name, true);
  const std::size_t size = bytes_of(file.get());
  switch (how % 16) {
    case 0: {
      const std::size_t cut = input.edgy() % largest_file;
      REQUIRE(::ftruncate(file.get(), static_cast<off_t>(cut)) == 0);
      break;
    }
    case 1:
      REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size * input.byte() / 256)) == 0);
      break;
    case 2:
      directory.remove(name);
      break;
    case 3:  // takes the place of another file
      directory.rename(name, names[input.below(names.size())]);
      break;
    case 4: {  // a name nobody gave
      std::string other = name;
      const std::size_t at = input.below(other.size());
      other[at] = "0123456789.x"[input.below(12)];
      if (how >= 128) other += input.chance() ? ".tmp" : "9";
      if (other != "." && other != "..") directory.rename(name, other);
      break;
    }
    case 5: {  // a copy
      std::string other = names[input.below(names.size())];
      if (how >= 128) other.back() = static_cast<char>('0' + input.below(10));
      const std::string content = directory.read_file(name);
      const shm::UniqueFd copy = directory.create(other);
      write_at(copy.get(), 0, content.data(), content.size());
      break;
    }
    case 6: {  // text: a definition that is none, or another one
      if (!name.ends_with(".json")) break;
      std::string content = directory.read_file(name);
      const std::size_t at = input.below(content.size() + 1);
      content.replace(std::min(at, content.size()), input.byte() % 16, input.text(input.byte() % 12));
      directory.write_file(name, content);
      break;
    }
    case 7: {  // a page of zeros
      const std::array<char, 4096> zeros{};
      const std::size_t pages = size / zeros.size();
      if (pages > 0) write_at(file.get(), input.below(std::min<std::size_t>(pages, 65'536)) * 4096, zeros.data(), 4096);
      break;
    }
    case 8: {
      const std::string_view bytes = input.text(1 + input.byte() % 32);
      if (size > bytes.size()) write_at(file.get(), input.half() % (size - bytes.size()), bytes.data(), bytes.size());
      break;
    }
    default: {  // a number of the first part, where there are few that mean nothing; or of records, of any size
      if (size < 8) break;
      const std::size_t reach = how % 16 < 13 ? 1024 : how % 16 == 13 ? 16u << 10 : size;
      const std::size_t width = std::array<std::size_t, 4>{8, 8, 4, 1}[how / 16 % 4];
      const std::size_t at = (input.half() * width) % (std::min(size, reach) - 7);
      std::uint64_t value = 0;
      REQUIRE(::pread(file.get(), &value, 8, static_cast<off_t>(at)) == 8);
      const std::uint64_t change = input.edgy();
      value = how >= 128 ? value + change : change;
      write_at(file.get(), at, &value, width);
      break;
    }
  }
}

// What the system refuses is an error; whatever else comes out is a finding.
template <class Act>
bool allowed(const Act& act) {
  try {
    act();
    return true;
  } catch (const Error& error) {
    CHECK_FALSE(error.why().empty());
    return false;
  }
}

// As tools read a bus that nobody serves.
void read_files(const Directory& directory) {
  allowed([&] { (void)exchange::stat_document(directory, "fuzzed").dump(); });
  std::size_t seen = 0;
  allowed([&] {
    exchange::walk_dead_files(directory, "plain", [&](const ring::EventParts& event) {
      seen += exchange::reason_of(event).size();
      return true;
    });
  });
}

struct Served {
  explicit Served(Directory& in) : directory(in) {
    started = allowed([&] { x = std::make_unique<Exchange>(directory); });
  }

  void run(int ticks) {
    for (; ticks > 0; --ticks) {
      // A batch moves at least one event; there are a few hundred.
      int steps = 0;
      while (x->step(now_ns)) REQUIRE_MESSAGE(++steps < 20'000, "the exchange moves something for ever");
      now_ns += 7 * ms;
      x->tick(now_ns);
    }
  }

  void look() {
    (void)exchange::stat_document(*x, "fuzzed").dump();
    for (const auto& queue : x->queues()) {
      if (!queue) continue;
      std::size_t seen = 0;
      exchange::InspectCursor cursor;
      for (int calls = 0; calls < 100 && cursor.stage != exchange::InspectCursor::end; ++calls) {
        cursor = exchange::peek(*queue, cursor, {}, [&](const ring::EventParts& event) {
          seen += event.header->payload_bytes + event.header->key_bytes;
          if (event.header->payload_bytes != 0)
            seen += static_cast<std::size_t>(event.payload[event.header->payload_bytes - 1]);
        });
      }
      for (std::uint64_t delivery = 1; delivery < 40; delivery += 3) {
        exchange::Wanted wanted;
        wanted.delivery = delivery;
        (void)exchange::explain(*queue, exchange::find(*queue, wanted, {}, {}), now_ns, x->served_at(now_ns));
      }
      (void)Exchange::walk_dead(*queue, {}, [&](std::uint64_t, const ring::EventParts& event) {
        seen += exchange::reason_of(event).size();
        return true;
      });
    }
  }

  // People and members do what they do.
  void use(fuzz::Input& input) {
    const std::uint64_t client = x->new_client();
    for (std::size_t i = 0; i < x->queues().size(); ++i) {
      exchange::Queue* queue = x->queues()[i].get();
      if (queue == nullptr) continue;
      const std::uint8_t what = input.byte();
      if ((what & 1) != 0) allowed([&] { x->requeue_dead(*queue, {}, now_ns); });
      if ((what & 2) != 0) x->purge_dead(*queue, {});
      if ((what & 4) != 0) allowed([&] { x->pause(*queue); });
      if ((what & 8) != 0) allowed([&] { x->resume(*queue); });
      if ((what & 16) != 0) x->purge(*queue, now_ns);
      if ((what & 32) != 0) x->end_subscription(*queue, (what & 64) != 0);
      SubscriptionOptions options = queue->options;
      allowed([&] {
        const exchange::MemberGrant grant = x->attach_member(client, options, false, {});
        members.emplace_back(directory, grant);
      });
    }
    run(2);
    test::Seen seen;
    for (test::CoreMember& member : members) {
      for (int takes = 0; takes < 100 && member.take(seen); ++takes) member.verdict(seen.entry, ring::Verdict::ack);
    }
    run(2);
    x->client_gone(client);
    members.clear();
  }

  // Whatever was there before, who comes new gets what was published for him; once nothing else is in the way.
  void newcomer() {
    SubscriptionOptions options;
    options.name = "newcomer";
    options.patterns = {"newcomer.#"};
    options.ring_bytes = 4096;
    options.max_in_flight = 8;
    const std::uint64_t client = x->new_client();
    test::CoreMember member(directory, x->attach_member(client, options, false, {}));
    test::CorePublisher publisher(directory, x->attach_publisher(client, "publisher-of-newcomer", 4096));
    for (int i = 1; i <= 5; ++i) REQUIRE(publisher.publish("newcomer.x", "event " + std::to_string(i)));
    run(2);
    for (std::size_t i = 0; i < x->queues().size(); ++i) {
      exchange::Queue* queue = x->queues()[i].get();
      if (queue != nullptr && queue->options.name != options.name) x->remove_subscription(*queue);
    }
    run(2);
    test::Seen seen;
    for (int i = 1; i <= 5; ++i) {
      REQUIRE(member.take(seen));
      CHECK(seen.payload == "event " + std::to_string(i));
      member.verdict(seen.entry, ring::Verdict::ack);
    }
    CHECK_FALSE(member.take(seen));
    run(1);
    const auto row = test::row_of(exchange::stat_document(*x, "fuzzed"), options.name);
    CHECK(row["acked"] == 5);
    x->client_gone(client);
  }

  Directory& directory;
  std::uint64_t now_ns = 2'000 * ms;
  bool started = false;
  std::unique_ptr<Exchange> x;
  std::vector<test::CoreMember> members;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, std::min<std::size_t>(size, 512));
  const std::shared_ptr<Directory> directory = image(input.byte()).clone();
  const fuzz::VirtualTime time;
  for (std::size_t times = input.byte() % 8; times > 0; --times) damage(*directory, input);
  read_files(*directory);
  {
    Served first(*directory);
    if (!first.started) return 0;
    // What is damaged is told.
    for (const std::string& name : directory->list("damaged.")) CHECK_MESSAGE(!first.x->report().empty(), name);
    first.look();
    first.run(3);
    first.use(input);
    first.run(3);
    first.look();
  }
  read_files(*directory);
  Served second(*directory);
  CHECK(second.started);  // what was set aside does not come back
  second.look();
  second.run(2);
  second.newcomer();
  return 0;
}
