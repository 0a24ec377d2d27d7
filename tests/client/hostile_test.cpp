// Clients that break the rules, at an exchange that serves: their connections are closed with a reason, and what they ask
// for without end holds up nobody (F23, F25, F26, F46). Many processes: tests/processes/hostile_test.cpp.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ackring/ackring.hpp"
#include "lib/control/socket.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/segment.hpp"
#include "tests/client/hosted_bus.hpp"

using namespace ackring;
using namespace std::chrono_literals;
using control::Json;

namespace {

using Scene = test::HostedBus;

// A client that speaks the protocol by itself, and has files of its own.
struct RawClient {
  explicit RawClient(const Scene& scene) : socket(control::Socket::connect(scene.path + "/b/exchange.sock")) {}
  // The next message, null where the connection is closed.
  Json answer() {
    control::Message message;
    std::string reason;
    REQUIRE(socket.wait_readable(20'000'000'000));
    if (socket.receive(message, reason) != control::ReceiveStatus::message) return nullptr;
    descriptors = std::move(message.descriptors);
    return message.body;
  }
  Json ask(Json request) {
    request["id"] = 1;
    REQUIRE(socket.send(request) == control::SendStatus::sent);
    return answer();
  }
  Json hello(std::uint64_t client = 0) {
    Json reply = ask(
        {{"op", "hello"}, {"layout", shm::layout_version}, {"membarrier", true}, {"name", "raw"}, {"client", client}});
    if (descriptors.size() == 3) lock = std::move(descriptors[2]);
    return reply;
  }
  shm::Segment ring() {
    REQUIRE(ask({{"op", "publisher"}, {"name", "bad"}, {"ring_bytes", 4096 * 4}})["ok"] == true);
    bell = std::move(descriptors.at(2));
    return shm::Segment::attach(std::move(descriptors.at(0)), "ring", shm::SegmentKind::ingress_ring,
                                shm::Access::read_write);
  }
  shm::Segment ack_page() {
    REQUIRE(ask({{"op", "subscribe"},
                 {"name", "bad"},
                 {"ephemeral", false},
                 {"patterns", {"#"}},
                 {"options", Json::object()}})["ok"] == true);
    bell = std::move(descriptors.at(2));
    return shm::Segment::attach(std::move(descriptors.at(1)), "ack page", shm::SegmentKind::ack_page,
                                shm::Access::read_write);
  }
  void ring_bell() const { (void)!::send(bell.get(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL); }

  control::Socket socket;
  std::vector<shm::UniqueFd> descriptors;
  shm::UniqueFd lock;
  shm::UniqueFd bell;
};

bool contains(const Json& reply, const std::string& part) {
  return reply.is_object() && reply.value("why", "").find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a publisher whose ring is damaged or cut short finds its connection closed, with the reason (F24, F25)") {
  for (const bool cut : {false, true}) {
    Scene scene;
    scene.start();
    Bus bus = scene.bus();
    Subscriber subscriber = bus.subscribe({.patterns = {"#"}});
    Publisher good = bus.publisher();
    RawClient bad(scene);
    REQUIRE(bad.hello()["ok"] == true);
    const shm::Segment ring = bad.ring();
    if (cut) {
      REQUIRE(::ftruncate(ring.fd(), 0) == 0);
    } else {
      ring.as<shm::IngressRing>()->tail.store(48, std::memory_order_release);  // zeros: no record
    }
    bad.ring_bell();
    const Json told = bad.answer();
    INFO(told.dump());
    CHECK(contains(told, "the ring of publisher bad is damaged"));
    CHECK(bad.answer().is_null());
    REQUIRE(good.publish("t", "x") == Outcome::ok);
    CHECK(subscriber.take(10s));
    // Who comes back may go on with something else.
    RawClient again(scene);
    CHECK(again.hello()["ok"] == true);
  }
}

TEST_CASE("a member whose ack page is not a possible one finds its connection closed, with the reason (F25, F28)") {
  Scene scene;
  scene.start();
  Bus bus = scene.bus();
  RawClient bad(scene);
  REQUIRE(bad.hello()["ok"] == true);
  const shm::Segment page = bad.ack_page();
  Publisher publisher = bus.publisher();
  for (int i = 0; i < 3; ++i) REQUIRE(publisher.publish("t", "x") == Outcome::ok);
  REQUIRE(publisher.flush(10s) == Outcome::ok);  // they are in its ring
  page.as<shm::AckPage>()->taken.store(1u << 20, std::memory_order_release);
  bad.ring_bell();
  const Json told = bad.answer();
  INFO(told.dump());
  CHECK(contains(told, "the member lost its place"));
  CHECK(bad.answer().is_null());
  Subscriber next = bus.subscribe({.name = "bad"});
  for (int i = 0; i < 3; ++i) {
    auto delivery = next.take(10s);
    REQUIRE(delivery);
    CHECK(delivery->attempt() == 2);
    CHECK(delivery->ack() == Outcome::ok);
  }
  CHECK(Json::parse(bus.stat_json())["subscriptions"][0]["invalid_acks"] == 1);
}

TEST_CASE("requests and bells without end, and connections that say nothing, hold up nobody (F23, F46)") {
  Scene scene;
  scene.start();
  Bus bus = scene.bus();
  Subscriber subscriber = bus.subscribe({.patterns = {"#"}});
  Publisher publisher = bus.publisher();
  std::atomic<bool> done{false};
  std::vector<std::thread> floods;
  for (int i = 0; i < 2; ++i) {
    floods.emplace_back([&] {
      RawClient client(scene);
      (void)client.hello();
      (void)client.ask({{"op", "publisher"}, {"name", ""}, {"ring_bytes", 4096}});
      client.bell = std::move(client.descriptors.at(2));
      std::vector<control::Socket> silent;
      for (int j = 0; j < 50; ++j) silent.push_back(control::Socket::connect(scene.path + "/b/exchange.sock"));
      while (!done.load(std::memory_order_relaxed)) {
        client.ring_bell();
        if (client.socket.send({{"op", "stat"}, {"id", 1}}) != control::SendStatus::sent) {
          (void)client.socket.send({{"op", "ping"}});  // it reads no answer
        }
      }
    });
  }
  for (int i = 0; i < 2'000; ++i) {
    REQUIRE(publisher.publish("t", std::to_string(i)) == Outcome::ok);
    auto delivery = subscriber.take(20s);
    REQUIRE(delivery);
    CHECK(delivery->sequence() == static_cast<std::uint64_t>(i) + 1);
    CHECK(delivery->ack() == Outcome::ok);
  }
  done.store(true, std::memory_order_relaxed);
  for (std::thread& flood : floods) flood.join();
  CHECK(Json::parse(bus.stat_json())["exchange"]["state"] == "running");
}

TEST_CASE("a client is resumed for its own user only, also by the next exchange") {
  Scene scene;
  scene.start();
  RawClient first(scene);
  const std::uint64_t id = first.hello()["client"].get<std::uint64_t>();
  const shm::UniqueFd lock = std::move(first.lock);
  const shm::FileDirectory directory(scene.path + "/b", false);
  const std::string file = "client." + std::to_string(id) + ".lock";
  CHECK(directory.read_file(file) == std::to_string(::geteuid()) + "\n");
  first.socket.close();
  RawClient second(scene);
  CHECK(second.hello(id)["client"] == id);
  second.socket.close();
  const auto lie = [&] {
    const shm::UniqueFd fd = directory.open(file, true);
    const std::string other = std::to_string(::geteuid() + 1) + "\n";
    REQUIRE(::pwrite(fd.get(), other.data(), other.size(), 0) == static_cast<ssize_t>(other.size()));
  };
  // Of one who holds nothing only its lock file says whose it is.
  scene.stop();
  lie();
  scene.start();
  RawClient third(scene);
  CHECK(third.hello(id)["code"] == "permission");
  third.socket.close();
  // Of one who holds something a file says so that nobody but X writes; what the lock file says is nothing to it.
  RawClient holder(scene);
  const std::uint64_t holds = holder.hello()["client"].get<std::uint64_t>();
  const shm::UniqueFd other_lock = std::move(holder.lock);
  const shm::Segment ring = holder.ring();
  holder.socket.close();
  scene.stop();
  {
    const shm::UniqueFd fd = directory.open("client." + std::to_string(holds) + ".lock", true);
    REQUIRE(::pwrite(fd.get(), "1\n\n", 3, 0) == 3);
  }
  scene.start();
  RawClient fourth(scene);
  CHECK(fourth.hello(holds)["client"] == holds);
}

TEST_CASE("a ring that another thread overwrites while X reads it harms nobody but its publisher (F26)") {
  Scene scene;
  scene.start();
  Bus bus = scene.bus();
  Subscriber subscriber = bus.subscribe({.name = "good", .patterns = {"good"}});
  Publisher good = bus.publisher({.name = "good"});
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> rounds{0};
  std::thread scribbler([&] {
    std::mt19937_64 random(seed);
    while (!done.load(std::memory_order_relaxed)) {
      rounds.fetch_add(1, std::memory_order_relaxed);
      RawClient client(scene);
      if (!client.hello().is_object()) continue;
      const shm::Segment ring = client.ring();
      // Valid events all over the ring, each of 64 bytes, behind the definition of their topic.
      std::vector<std::byte> records(4096 * 4);
      for (std::size_t at = 0; at < records.size(); at += 64) {
        shm::RecordHeader header{};
        header.bytes = 64;
        header.kind = static_cast<std::uint16_t>(at == 0 ? shm::RecordKind::topic : shm::RecordKind::event);
        header.sequence = at / 64;
        header.topic = 1;
        header.payload_bytes = at == 0 ? 3 : 16;
        std::memcpy(&records[at], &header, sizeof header);
        std::memcpy(&records[at + sizeof header], "bad", 3);
      }
      const auto write = [&](const void* from, std::size_t bytes, std::size_t to) {
        (void)!::pwrite(ring.fd(), from, bytes,
                        static_cast<off_t>(to));  // by the kernel: not seen as a race of this test
      };
      write(records.data(), records.size(), shm::page_bytes);
      for (std::uint64_t tail = 64; tail < 4096 * 4 && client.socket; tail += 64) {
        write(&tail, sizeof tail, offsetof(shm::IngressRing, tail));
        client.ring_bell();
        // The record that X is about to read, or reads.
        const std::uint64_t noise = random() % 3 == 0 ? random() : random() % 128;
        const std::size_t where = (tail - 64 * (random() % 2)) % (4096 * 4) + 8 * (random() % 8);
        if (random() % 4 == 0) write(&noise, sizeof noise, shm::page_bytes + where % (4096 * 4));
        if (client.socket.hung_up()) break;
      }
    }
  });
  std::uint64_t expected = 0;
  // At least so many, and until the other one had its turns, whenever the scheduler gave it some.
  while (expected < 3'000 || rounds.load(std::memory_order_relaxed) < 2) {
    REQUIRE(good.publish("good", std::to_string(expected)) == Outcome::ok);
    auto delivery = subscriber.take(20s);
    REQUIRE(delivery);
    CHECK(delivery->sequence() == ++expected);
    CHECK(delivery->ack() == Outcome::ok);
  }
  done.store(true, std::memory_order_relaxed);
  scribbler.join();
  CHECK(subscriber.flush(20s) == Outcome::ok);
  const Json stat = Json::parse(bus.stat_json());
  CHECK(stat["subscriptions"][0]["acked"] == expected);
  for (const Json& row : stat["publishers"]) {
    if (row["name"] == "good") CHECK(row["routed"] == expected);
  }
}
