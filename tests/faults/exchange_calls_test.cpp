// Every system call that the exchange makes, from its start to the end of its last client, fails once with each error that
// it may fail with. Who asked gets an Error with object and errno, and gets what he wanted when he asks again; nobody else
// notices; the books are exact, nothing is set aside as damaged, and no file, no descriptor and no mapping stays. A file that
// could not be removed is gone when the next exchange has started.
//
// ACKRING_CALL=ENOSPC:12 plays one failure; ACKRING_DEEP=1 all of them, and not every fifth.
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "tests/faults/served_bus.hpp"

using namespace ackring;
using namespace ackring::test;

namespace {

struct Books {
  std::multiset<std::string> files;      // at the end, with the exchange alive and its clients gone
  std::multiset<std::string> successor;  // with the next one alive
  std::size_t descriptors = 0;           // then
  std::uint64_t matched = 0;
};

control::Json subscription_request(const char* op, const std::string& name, const control::Json& options = {}) {
  return {{"op", op},
          {"name", name},
          {"ephemeral", false},
          {"patterns", {"#"}},
          {"options", options.is_null() ? control::Json::object() : options}};
}

void take_and_decide(CoreMember& member, std::map<std::uint64_t, std::uint32_t>& attempts, std::uint64_t& first) {
  Seen seen;
  while (member.take(seen)) {
    CHECK(attempts[seen.delivery] < seen.attempt);
    attempts[seen.delivery] = seen.attempt;
    first += seen.attempt == 1 ? 1 : 0;
    if (seen.attempt == 1 && seen.delivery % 9 == 2) {
      member.verdict(seen.entry, ring::Verdict::nack);
    } else if (seen.attempt == 1 && seen.delivery % 9 == 5) {
      member.verdict(seen.entry, ring::Verdict::reject);
    } else {
      member.verdict(seen.entry, ring::Verdict::ack);
    }
  }
}

// Members come and go: their rings are retired one behind the other, in one subscription and in a group.
void come_and_go(ServedBus& bus) {
  for (int i = 0; i < 3; ++i) {
    for (const bool group : {false, true}) {
      control::Json request = subscription_request("subscribe", group ? "group" : "single", {{"group", group}});
      request["patterns"] = {"nothing"};
      std::vector<control::Json> members;
      for (int member = 0; member < (group ? 2 : 1); ++member) members.push_back(bus.ask(request));
      bus.tick();
      for (const control::Json& member : members) {
        bus.ask({{"op", "unsubscribe"}, {"subscription", member["subscription"]}, {"ack_page", member["ack_page"]}});
      }
      bus.tick();
    }
  }
  control::Json ephemeral = subscription_request("subscribe", "");
  ephemeral["ephemeral"] = true;
  ephemeral["patterns"] = {"nothing"};
  const control::Json member = bus.ask(ephemeral);
  bus.ask({{"op", "unsubscribe"}, {"subscription", member["subscription"]}, {"ack_page", member["ack_page"]}});
  bus.tick();
}

// A life of the bus in which the exchange makes every call that it knows.
Books live(CallPlan& plan) {
  const BusFolder folder;
  Books books;
  {
    ServedBus bus(folder, plan);
    const control::Json small = {{"ring_bytes", 65536}, {"backoff_initial_ns", 0}, {"backoff_max_ns", 0}};
    std::map<std::uint64_t, std::uint32_t> attempts;
    std::uint64_t first = 0;
    std::uint64_t published = 0;
    bus.ask(subscription_request("subscription_create", "slow", small));
    auto publisher = std::make_unique<CorePublisher>(bus.publisher("one"));
    control::Json announced = subscription_request("subscribe", "s", small);
    announced["patterns"] = {"a", "b", "t.#"};
    announced["options"]["dead_letter_topic"] = "letters";
    auto member = std::make_unique<CoreMember>(bus.member(announced));
    const auto publish = [&](const std::string& topic, std::size_t bytes) {
      REQUIRE(publisher->publish(topic, std::string(bytes, 'p')));
      ++published;
    };
    for (int i = 0; i < 40; ++i) {
      publish("a", 2000);
      if (i % 8 == 0) bus.step();
      if (i % 20 == 0) bus.tick();
      take_and_decide(*member, attempts, first);
    }
    // Topics for more than one step of the cursor's map and of the topic table.
    for (int i = 0; i < 1300; ++i) {
      publish("t." + std::to_string(i) + std::string(220, 'x'), 0);
      if (i % 100 == 0) bus.step();
      take_and_decide(*member, attempts, first);
    }
    for (int i = 0; i < 4; ++i) {
      bus.tick();
      take_and_decide(*member, attempts, first);
    }
    bus.ask({{"op", "stat"}});
    bus.ask({{"op", "peek"}, {"name", "slow"}});
    bus.ask({{"op", "dead_letters"}, {"name", "s"}});
    bus.ask({{"op", "dead_requeue"}, {"name", "s"}, {"at_most", 1}});
    bus.ask({{"op", "subscription_pause"}, {"name", "s"}});
    bus.ask(subscription_request("subscription_update", "slow", small));
    bus.ask({{"op", "subscription_resume"}, {"name", "s"}});
    publish("a", 10);
    bus.tick();
    take_and_decide(*member, attempts, first);
    come_and_go(bus);
    // The publisher goes and comes again; so does the exchange.
    bus.ask({{"op", "publisher_close"}, {"slot", publisher->slot()}, {"incarnation", publisher->incarnation()}});
    const std::uint64_t sequence = publisher->sequence();
    publisher = std::make_unique<CorePublisher>(bus.publisher("one"));
    CHECK(publisher->sequence() == sequence);
    bus.restart();
    bus.ask(
        {{"op", "publisher"}, {"resume", {{"slot", publisher->slot()}, {"incarnation", publisher->incarnation()}}}});
    const exchange::Queue& queue = *bus.x().find_queue("s");
    bus.ask({{"op", "subscribe"}, {"resume", {{"subscription", queue.id}, {"ack_page", queue.lane.ack_incarnation}}}});
    publish("b", 10);
    for (int i = 0; i < 4; ++i) {
      bus.tick();
      take_and_decide(*member, attempts, first);
    }
    // While nothing is missing any more, all gets where it belongs.
    const std::uint64_t fail_at = plan.fail_at;
    plan.fail_at = ~std::uint64_t{0};
    plan.lasting = false;
    for (int i = 0; i < 40; ++i) {
      bus.tick();
      take_and_decide(*member, attempts, first);
    }
    const auto stat = exchange::stat_document(bus.x(), "faults");
    check_books(stat);
    const auto row = row_of(stat, "s");
    INFO(row.dump(), " published ", published);
    CHECK(stat["publishers"][0]["in_ring"] == 0);
    for (const auto& one : bus.x().publishers()) CHECK((!one || !one->quarantined));
    books.matched = row["matched"];
    CHECK(first == books.matched);
    CHECK(row["queued"] == 0);
    CHECK(row["retry_waiting"] == 0);
    CHECK(row_of(stat, "slow")["queued"].get<std::uint64_t>() ==
          books.matched + row["dead_lettered"].get<std::uint64_t>());
    CHECK(row["dead_lettered"] > 0);
    // A topic for which there was no room is refused to its publisher, whose events of it count as discarded.
    CHECK(books.matched + stat["publishers"][0]["discarded"].get<std::uint64_t>() == published);
    // The end may fail, too.
    plan.fail_at = fail_at;
    bus.ask({{"op", "publisher_close"}, {"slot", publisher->slot()}, {"incarnation", publisher->incarnation()}});
    bus.ask({{"op", "unsubscribe"}, {"subscription", queue.id}, {"ack_page", queue.lane.ack_incarnation}});
    for (const char* name : {"s", "slow", "single", "group"})
      bus.ask({{"op", "subscription_remove"}, {"name", name}, {"pending", "drop"}});
    bus.tick();
    bus.leave();
    publisher.reset();
    member.reset();
    books.files = folder.kinds();
    plan.fail_at = ~std::uint64_t{0};
    bus.succeed();
    books.successor = folder.kinds();
    books.descriptors = open_descriptors();
  }
  return books;
}

// Names that only one of both has.
std::string difference_of(const std::multiset<std::string>& left, const std::multiset<std::string>& right) {
  std::vector<std::string> names;
  std::set_symmetric_difference(left.begin(), left.end(), right.begin(), right.end(), std::back_inserter(names));
  std::string text;
  for (const std::string& name : names) text += name + " ";
  return text;
}

}  // namespace

TEST_CASE("every system call of the exchange fails once with each error: an answer, the exact books, nothing left") {
  CallPlan none;
  (void)live(none);  // what a process opens once and for good
  const std::size_t descriptors = open_descriptors();
  const Books sound = live(none);
  CHECK(open_descriptors() == descriptors);
  for (const std::string& file : sound.files) CHECK(file.find("sub.") == std::string::npos);
  CHECK(sound.successor == sound.files);
  const char* only = std::getenv("ACKRING_CALL");
  const std::uint64_t stride = std::getenv("ACKRING_DEEP") != nullptr || only != nullptr ? 1 : 5;
  std::uint64_t played = 0;
  std::map<std::string, std::uint64_t> calls;
  for (const int error : injected_errors()) {
    const std::string name = error_name(error);
    CallPlan count;
    count.error = error;
    (void)live(count);
    const std::uint64_t positions = count.positions.load(std::memory_order_relaxed);
    REQUIRE(positions > 0);
    const std::uint64_t step = positions < 20 ? 1 : stride;
    for (std::uint64_t n = played % step; n < positions; n += step) {
      if (only != nullptr && name + ":" + std::to_string(n) != only) continue;
      CAPTURE(name);
      CAPTURE(n);
      CallPlan plan;
      plan.error = error;
      plan.fail_at = n;
      const Books books = live(plan);
      INFO("in ", plan.call.load(std::memory_order_relaxed));
      if (std::string_view(plan.call.load(std::memory_order_relaxed)) != "unlinkat") CHECK(books.files == sound.files);
      CHECK(difference_of(books.successor, sound.successor) == "");
      CHECK(books.descriptors == sound.descriptors);
      CHECK(open_descriptors() == descriptors);
      CHECK(mapped_files() == 0);
      ++calls[name + " " + plan.call.load(std::memory_order_relaxed)];
      ++played;
    }
    std::printf("%s: %llu positions\n", name.c_str(), static_cast<unsigned long long>(positions));
  }
  for (const auto& [call, count] : calls) {
    std::printf("  %-28s %5llu\n", call.c_str(), static_cast<unsigned long long>(count));
  }
  std::printf("failures of the exchange's calls: %llu\n", static_cast<unsigned long long>(played));
}

TEST_CASE("a file system without room: the exchange serves what it can, waits for the rest, and loses nothing (F20)") {
  const BusFolder folder;
  CallPlan plan;
  plan.error = ENOSPC;
  ServedBus bus(folder, plan);
  control::Json waits = subscription_request("subscription_create", "waits", {{"ring_bytes", 4096}});
  waits["patterns"] = {"w"};
  bus.ask(waits);
  auto quick = bus.member({{"op", "subscribe"},
                           {"name", "quick"},
                           {"ephemeral", false},
                           {"patterns", {"q"}},
                           {"options", control::Json::object()}});
  auto slow = bus.publisher("slow");
  auto other = bus.publisher("other");
  plan.fail_at = 0;
  plan.lasting = true;
  std::uint64_t published = 0;
  while (published < 2000 && slow.publish("w", std::string(500, 'w'))) {
    ++published;
    bus.step();
  }
  CHECK(published < 2000);  // its ring is full, as the backlog could not grow
  Seen seen;
  for (int i = 0; i < 10; ++i) {
    REQUIRE(other.publish("q", "quick"));
    bus.tick();
    REQUIRE(quick.take(seen));
    quick.ack_through(seen.entry);
  }
  plan.lasting = false;
  plan.fail_at = ~std::uint64_t{0};
  for (int i = 0; i < 10; ++i) bus.tick();
  const auto stat = exchange::stat_document(bus.x(), "faults");
  check_books(stat);
  CHECK(row_of(stat, "waits")["queued"] == published);
  CHECK(row_of(stat, "quick")["acked"] == 10);
}

TEST_CASE("too few descriptors for what it finds: the exchange does not start, and sets nothing aside (F21)") {
  const BusFolder folder;
  CallPlan none;
  {
    ServedBus bus(folder, none);
    for (int i = 0; i < 8; ++i) bus.ask(subscription_request("subscription_create", "s" + std::to_string(i)));
    auto publisher = bus.publisher("one");
    REQUIRE(publisher.publish("a", "kept"));
    bus.step();
  }
  const auto files = folder.kinds();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  int refused = 0;
  for (rlim_t more = 0; more < 12; ++more) {
    shm::FileDirectory directory(folder.path, false);
    // The lowest number that is not open is the next one.
    const shm::UniqueFd next(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const rlimit few{static_cast<rlim_t>(next.get()) + 1 + more, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    std::string problem;
    int error = 0;
    try {
      const exchange::Exchange x(directory);
    } catch (const Error& found) {
      problem = found.what();
      error = found.system_errno();
      ++refused;
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    INFO(more, " descriptors: ", problem);
    CHECK((problem.empty() || error == EMFILE));
    CHECK(folder.kinds() == files);
  }
  CHECK(refused > 0);
  shm::FileDirectory directory(folder.path, false);
  exchange::Exchange x(directory);
  const auto stat = exchange::stat_document(x, "faults");
  check_books(stat);
  for (int i = 0; i < 8; ++i) CHECK(row_of(stat, "s" + std::to_string(i))["queued"] == 1);
}

TEST_CASE(
    "an answer that died with its exchange: who asks again gets the name and the place, who has resumed does not") {
  const BusFolder folder;
  CallPlan none;
  ServedBus bus(folder, none);
  const control::Json publisher_request = {{"op", "publisher"}, {"name", "one"}, {"ring_bytes", 4096}};
  const control::Json subscribe = subscription_request("subscribe", "s");
  bus.ask(publisher_request);  // nobody looks at these answers
  bus.ask(subscribe);
  bus.restart();
  auto publisher = bus.publisher("one");
  auto member = bus.member(subscribe);
  REQUIRE(publisher.publish("a", "b"));
  bus.step();
  Seen seen;
  CHECK(member.take(seen));
  CHECK(bus.refused(publisher_request)["code"] == "busy");
  CHECK(bus.refused(subscribe)["code"] == "busy");
  bus.restart();
  const exchange::Queue& queue = *bus.x().find_queue("s");
  bus.ask({{"op", "publisher"}, {"resume", {{"slot", publisher.slot()}, {"incarnation", publisher.incarnation()}}}});
  bus.ask({{"op", "subscribe"}, {"resume", {{"subscription", queue.id}, {"ack_page", queue.lane.ack_incarnation}}}});
  CHECK(bus.refused(publisher_request)["code"] == "busy");
  CHECK(bus.refused(subscribe)["code"] == "busy");
}
