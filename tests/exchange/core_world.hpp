// A bus without processes: the real exchange on anonymous memory, and clients that write and read the shared bytes by the
// same ring and ack classes as the library's endpoints. Everything runs on the calling thread, so that a test decides what
// happens when.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/exchange/exchange.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/ring/consumed.hpp"
#include "lib/shm/directory.hpp"
#include "tests/exchange/soundness.hpp"

namespace ackring::test {

struct Seen {
  std::string publisher;
  std::uint64_t sequence;
  std::uint64_t delivery;
  std::uint32_t attempt;
  std::uint64_t entry;
  std::string payload;
  std::string key;
  std::vector<std::uint32_t> causes;  // of the attempts before
  std::string_view view;              // the payload in the ring
};

class CorePublisher {
 public:
  CorePublisher(shm::Directory& directory, const exchange::PublisherGrant& grant)
      : slot_(grant.slot), incarnation_(grant.incarnation), sequence_(grant.next_sequence - 1) {
    ring_ = shm::Segment::attach(directory, grant.ring_file, shm::SegmentKind::ingress_ring, shm::Access::read_write);
    cursor_ =
        shm::Segment::attach(directory, grant.cursor_file, shm::SegmentKind::ingress_cursor, shm::Access::read_only);
    exchange_ = shm::Segment::attach(directory, "exchange", shm::SegmentKind::exchange, shm::Access::read_only);
    auto* page = ring_.as<shm::IngressRing>();
    events_ = page->events.load(std::memory_order_relaxed);
    writer_ = ring::RingWriter(ring_.data() + shm::page_bytes, page->ring_bytes, &page->tail,
                               page->tail.load(std::memory_order_relaxed), 0);
  }

  /// False when the ring has no room.
  bool add(const std::string& topic, const std::string& payload, const std::string& key = "",
           const shm::TimingInfo& times = {}) {
    writer_.set_head(
        ring::consumed_by_all(*cursor_.as<shm::IngressCursor>(), exchange_.as<const shm::ExchangeSegment>()->shards));
    std::uint32_t& number = topics_[topic];
    if (number == 0) {
      const std::uint32_t next = static_cast<std::uint32_t>(topics_.size());
      if (!write(shm::RecordKind::topic, next, 0, topic, "", {})) {
        topics_.erase(topic);
        return false;
      }
      number = next;
    }
    if (!write(shm::RecordKind::event, number, sequence_ + 1, payload, key, times)) return false;
    ++sequence_;
    ++events_;
    return true;
  }
  void commit() {
    ring_.as<shm::IngressRing>()->events.store(events_, std::memory_order_relaxed);
    writer_.commit();
  }
  bool publish(const std::string& topic, const std::string& payload, const shm::TimingInfo& times = {}) {
    const bool added = add(topic, payload, "", times);
    commit();
    return added;
  }
  [[nodiscard]] std::uint64_t sequence() const { return sequence_; }
  /// The next event gets the number behind this one.
  void number_from(std::uint64_t sequence) { sequence_ = sequence; }
  std::uint64_t published_ns = 1;  // of events that come
  std::string headers;             // as they lie in a record
  [[nodiscard]] std::uint16_t slot() const { return slot_; }
  [[nodiscard]] std::uint64_t incarnation() const { return incarnation_; }

 private:
  bool write(shm::RecordKind kind, std::uint32_t topic, std::uint64_t sequence, const std::string& payload,
             const std::string& key, const shm::TimingInfo& times) {
    const bool timed = times.expires_ns != 0 || times.not_before_ns != 0;
    const std::size_t timing_bytes = timed ? sizeof times : 0;
    shm::RecordHeader header{};
    header.flags = timed ? shm::flag_timing : 0;
    const std::string& extra = kind == shm::RecordKind::event ? headers : no_headers_;
    header.bytes =
        static_cast<std::uint32_t>(ring::record_bytes(payload.size() + timing_bytes, key.size(), extra.size()));
    header.kind = static_cast<std::uint16_t>(kind);
    header.headers_bytes = static_cast<std::uint32_t>(extra.size());
    header.sequence = sequence;
    header.published_ns = published_ns;
    header.topic = topic;
    header.payload_bytes = static_cast<std::uint32_t>(payload.size());
    header.key_bytes = static_cast<std::uint16_t>(key.size());
    std::byte* to = writer_.claim(header.bytes);
    if (to == nullptr) return false;
    std::memcpy(to, &header, sizeof header);
    to += sizeof header;
    std::memcpy(to, &times, timing_bytes);
    to += timing_bytes;
    std::memcpy(to, payload.data(), payload.size());
    std::memcpy(to + payload.size(), key.data(), key.size());
    std::memcpy(to + payload.size() + key.size(), extra.data(), extra.size());
    writer_.advance(header.bytes);
    return true;
  }

  const std::string no_headers_;
  std::uint16_t slot_;
  std::uint64_t incarnation_;
  std::uint64_t sequence_;
  std::uint64_t events_ = 0;
  shm::Segment ring_;
  shm::Segment cursor_;
  shm::Segment exchange_;
  ring::RingWriter writer_;
  std::map<std::string, std::uint32_t> topics_;
};

class CoreMember {
 public:
  CoreMember(shm::Directory& directory, const exchange::MemberGrant& grant)
      : name(grant.queue->options.name), ring(grant.lane->ring_incarnation), entry_(grant.entry) {
    ring_ = shm::Segment::attach(directory, grant.ring_file, shm::SegmentKind::member_ring, shm::Access::read_only);
    acks_ = shm::Segment::attach(directory, grant.ack_file, shm::SegmentKind::ack_page, shm::Access::read_write);
    const auto* page = ring_.as<const shm::MemberRing>();
    const std::uint64_t states = (page->slots + shm::page_bytes - 1) & ~(shm::page_bytes - 1);
    reader_ = ring::RingReader(ring_.data() + shm::page_bytes + states, page->ring_bytes, &page->tail, grant.position);
    writer_ = ring::AckWriter(acks_.as<shm::AckPage>());
  }

  /// Takes one delivery; false if there is none. What the exchange has taken back is returned to it, as a client does.
  bool take(Seen& seen) {
    const std::byte* record = reader_.peek();
    while (record != nullptr) {
      writer_.taken(entry_ + 1);
      if (static_cast<std::int64_t>(ring_.as<const shm::MemberRing>()->revoked.load(std::memory_order_relaxed) -
                                    entry_) <= 0) {
        break;
      }
      writer_.verdict(entry_++, ring::Verdict::returned);
      reader_.advance(reinterpret_cast<const shm::RecordHeader*>(record)->bytes);
      record = reader_.peek();
    }
    if (record == nullptr) return false;
    const ring::EventParts event = ring::parts(record);
    seen.publisher = std::to_string(event.header->publisher);
    seen.sequence = event.header->sequence;
    seen.delivery = event.header->delivery;
    seen.attempt = event.attempt != nullptr ? event.attempt->attempt : 1;
    seen.entry = entry_++;
    seen.key.assign(reinterpret_cast<const char*>(event.key), event.header->key_bytes);
    seen.view = {reinterpret_cast<const char*>(event.payload), event.header->payload_bytes};
    seen.payload = seen.view;
    seen.causes.clear();
    for (std::size_t i = 0; event.attempt != nullptr && i < event.attempt->history; ++i) {
      seen.causes.push_back(event.history[i].cause);
    }
    reader_.advance(event.header->bytes);
    return true;
  }
  bool verdict(std::uint64_t entry, ring::Verdict verdict) { return writer_.verdict(entry, verdict); }
  bool nack(std::uint64_t entry, std::uint32_t delay_ms) {
    return writer_.verdict(entry, ring::Verdict::nack, delay_ms);
  }
  bool nack(std::uint64_t entry, const std::string& reason) { return writer_.nack(entry, reason); }
  bool give_back(std::uint64_t entry, std::uint32_t delay_ms = 0) {
    return writer_.verdict(entry, ring::Verdict::give_back, delay_ms);
  }
  /// Any word.
  bool forge(std::uint64_t entry, ring::Verdict verdict, std::uint32_t delay) {
    return writer_.verdict(entry, verdict, delay);
  }
  bool reject(std::uint64_t entry, const std::string& reason) { return writer_.reject(entry, reason); }
  bool extend(std::uint64_t entry, std::uint32_t ms) { return writer_.extend(entry, ms); }
  void ack_through(std::uint64_t entry) { writer_.ack_through(entry + 1); }
  void release() { writer_.released(entry_); }
  shm::AckPage* page() { return acks_.as<shm::AckPage>(); }
  shm::MemberLatency& latency() { return writer_.latency(); }

  std::string name;
  std::uint64_t ring;  // incarnation

 private:
  std::uint64_t entry_;
  shm::Segment ring_;
  shm::Segment acks_;
  ring::RingReader reader_;
  ring::AckWriter writer_;
};

/// Does the identity of the books hold for every subscription of a stat document, and that of each publisher?
inline void check_books(const nlohmann::ordered_json& stat) {
  INFO(stat.dump(1));
  for (const auto& row : stat["subscriptions"]) {
    std::uint64_t places = 0;
    for (const char* place :
         {"acked", "queued", "in_flight", "retry_waiting", "dlq_size", "dlq_removed", "expired", "purged"}) {
      places += row[place].get<std::uint64_t>();
    }
    for (const auto& [reason, count] : row["dropped"].items()) places += count.get<std::uint64_t>();
    CHECK(row["matched"].get<std::uint64_t>() == places);
    CHECK(row["last"].get<std::uint64_t>() == row["committed"].get<std::uint64_t>() + row["lag"].get<std::uint64_t>());
  }
  for (const auto& row : stat["publishers"]) {
    CHECK(row["committed"].get<std::uint64_t>() ==
          row["routed"].get<std::uint64_t>() + row["unroutable"].get<std::uint64_t>() +
              row["duplicates"].get<std::uint64_t>() + row["discarded"].get<std::uint64_t>() +
              row["denied"].get<std::uint64_t>() + row["in_ring"].get<std::uint64_t>());
  }
}

inline nlohmann::ordered_json row_of(const nlohmann::ordered_json& stat, const std::string& name) {
  for (const auto& row : stat["subscriptions"]) {
    if (row["name"] == name) return row;
  }
  FAIL("no subscription " << name);
  return {};
}

/// What an exchange leaves behind, wherever it dies, the next one finds sound: it sets nothing aside and recounts nothing.
inline void check_found_sound(const exchange::Exchange& x) {
  for (const exchange::Notice& notice : x.report()) {
    const std::string& line = notice.text;
    CAPTURE(line);
    CHECK(line.find("set aside") == std::string::npos);
    CHECK(line.find("recounted") == std::string::npos);
  }
}

/// One batch of every shard. True if any moved.
inline bool step_all(exchange::Exchange& x, std::uint64_t now_ns) {
  bool moved = false;
  for (exchange::Exchange* shard : x.shards()) moved = (shard != nullptr && shard->step(now_ns)) || moved;
  return moved;
}

inline void tick_all(exchange::Exchange& x, std::uint64_t now_ns) {
  for (exchange::Exchange* shard : x.shards()) {
    if (shard != nullptr) shard->tick(now_ns);
  }
}

/// An exchange on anonymous memory with a clock that a test moves.
struct World {
  std::shared_ptr<shm::MemoryDirectory> directory = std::make_shared<shm::MemoryDirectory>();
  std::size_t shards;  // that the next exchange asks for
  std::unique_ptr<exchange::Exchange> x;
  std::uint64_t now_ns = 1'000'000'000;
  std::uint64_t client;

  explicit World(std::size_t count = 1) : shards(count), x(start(*directory, count)), client(x->new_client()) {}

  /// One that does not wait for members of full rings: the clock stands still while a test makes it step.
  static std::unique_ptr<exchange::Exchange> start(shm::Directory& directory, std::size_t shards = 1) {
    auto exchange = exchange::Exchange::open(directory, {}, shards);
    exchange->set_full_ring_grace(0);
    return exchange;
  }
  CorePublisher publisher(const std::string& name = "", std::uint64_t ring_bytes = 64 << 10) {
    return {*directory, x->attach_publisher(client, name, ring_bytes)};
  }
  CoreMember member(const std::string& name, std::vector<std::string> patterns, SubscriptionOptions options = {}) {
    options.name = name;
    options.patterns = std::move(patterns);
    return {*directory, x->attach_member(client, options, name.empty(), {})};
  }
  void run() {
    while (step_all(*x, now_ns)) {
    }
  }
  /// Only this shard steps, until it has nothing to do.
  void run(std::size_t shard) {
    while (x->shards()[shard]->step(now_ns)) {
    }
  }
  void tick(std::uint64_t ns = 5'000'000) {
    now_ns += ns;
    tick_all(*x, now_ns);
    run();
  }
  nlohmann::ordered_json stat() {
    const auto live = exchange::stat_document(*x, "test");
    check_books(live);
    check_books(exchange::stat_document(*directory, "test"));
    check_sound(*directory);
    return live;
  }
  void restart() {
    x.reset();
    x = start(*directory, shards);
    run();
  }
};

}  // namespace ackring::test
