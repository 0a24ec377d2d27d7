// Dead-letter topic: the dead letters of a subscription are published to a topic, too, so that any subscription can watch
// them. Each goes from the dead-letter log into the ring of a publisher that X itself is, and on from there as any event.
#include "lib/exchange/dead_letter_topic.hpp"

#include <algorithm>
#include <array>

#include "ackring/error.hpp"
#include "lib/control/topic_pattern.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/ring/header_field.hpp"

namespace ackring::exchange {

using shm::RecordHeader;
using shm::RecordKind;
using shm::TransactionKind;

namespace {

void append_header(std::string& headers, std::string_view name, std::string_view value) {
  std::array<std::byte, ring::header_prefix_bytes> prefix{};
  ring::write_header_prefix(prefix.data(), name, value);
  headers.append(reinterpret_cast<const char*>(prefix.data()), prefix.size());
  headers.append(name).append(value);
}

std::string_view text(const std::byte* from, std::size_t bytes) { return {reinterpret_cast<const char*>(from), bytes}; }

// Writes a record behind what the writer has; false: there is no room.
bool write(LetterPublisher& letters, RecordHeader header, std::string_view payload, std::string_view key,
           std::string_view headers) {
  header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  header.key_bytes = static_cast<std::uint16_t>(key.size());
  header.headers_bytes = static_cast<std::uint32_t>(headers.size());
  header.bytes = static_cast<std::uint32_t>(ring::record_bytes(payload.size(), key.size(), headers.size()));
  std::byte* to = letters.writer.claim(header.bytes);
  if (to == nullptr) return false;
  ring::write_header(to, header, 0);
  to += sizeof header;
  for (const std::string_view part : {payload, key, headers}) {
    if (!part.empty()) shm::shared_copy(to, part.data(), part.size());
    to += part.size();
  }
  letters.writer.advance(header.bytes);
  return true;
}

}  // namespace

/// Are there dead letters that its topic has not got yet?
bool has_unannounced(const Queue& queue) {
  return !queue.options.dead_letter_topic.empty() &&
         std::max(queue.block.dead_published, queue.block.dead_head) != queue.dead.tail();
}

/// Publishes some of the dead letters that its topic has not got yet; where the ring is full, the next tick goes on.
void Exchange::announce(Queue& queue) {
  if (!has_unannounced(queue) || !may_change()) return;
  if (!peers_->letters) {
    try {
      lead().open_letters();
    } catch (const Error&) {
      return;  // the file system has no room for its ring, or this process none for a mapping: the next tick tries again
    }
  }
  LetterPublisher& letters = *peers_->letters;
  std::uint64_t head = letters.ingress->block.consumed;
  for_each_shard([&](const Exchange& shard) {
    const std::uint64_t consumed = shard.publishers_[letters.ingress->slot]->block.consumed;
    if (static_cast<std::int64_t>(consumed - head) < 0) head = consumed;
  });
  letters.writer.set_head(head);
  shm::SubscriptionBlock& block = queue.block;
  for (std::uint64_t i = 0; i < batch_events; ++i) {
    const std::uint64_t from = std::max(block.dead_published, block.dead_head);
    std::uint64_t position = from;
    const RecordHeader* record = queue.dead.at(position);
    if (record == nullptr) break;
    const std::uint64_t start = letters.writer.position();
    if (!write_letter(queue, *record)) {
      letters.writer.rollback(start);
      break;
    }
    shm::Environment::at(shm::CrashPoint::dead_announce);
    begin(TransactionKind::announce, queue.id, from, 0);
    touch_sink(letters.ingress->first().sink, n_, start);
    ++letters.events;
    letters.page->events.store(letters.events, std::memory_order_relaxed);  // relaxed: published by the tail
    letters.writer.commit();
    touch(queue);
    block.dead_published = log::SegmentLog::next(position, *record);
    commit_sinks();
    for_each_shard([&](Exchange& shard) { shard.heat(*shard.publishers_[letters.ingress->slot]); });
  }
  shorten_dead(queue);
}

// What the event of a dead letter is: the one that died, with headers that say what became of it.
bool Exchange::write_letter(const Queue& queue, const RecordHeader& record) {
  LetterPublisher& letters = *peers_->letters;
  const ring::EventParts event = ring::parts(reinterpret_cast<const std::byte*>(&record));
  const std::string& topic = queue.options.dead_letter_topic;
  RecordHeader header{};
  header.published_ns = now_ns_;
  const auto known = letters.topics.find(topic);
  const bool fresh = known == letters.topics.end();
  header.topic = fresh ? static_cast<std::uint32_t>(letters.topics.size() + 1) : known->second;
  header.kind = static_cast<std::uint16_t>(RecordKind::topic);
  if (fresh && !write(letters, header, topic, {}, {})) return false;

  std::string notes;
  append_header(notes, "dead-letter-subscription", queue.options.name);
  append_header(notes, "dead-letter-reason", reason_of(event));
  append_header(notes, "dead-letter-topic", peers_->topics->text(record.topic));
  append_header(notes, "dead-letter-publisher", publishers_[record.publisher]->name);
  append_header(notes, "dead-letter-sequence", std::to_string(record.sequence));
  append_header(notes, "dead-letter-delivery", std::to_string(record.delivery));
  append_header(notes, "dead-letter-attempts",
                std::to_string(attempt_of(event).info.attempt - (is_untaken(event) ? 1 : 0)));
  std::string_view payload = text(event.payload, record.payload_bytes);
  const std::string_view key = text(event.key, record.key_bytes);
  const std::uint64_t most = ring::max_event_bytes(letters.writer.ring_bytes());
  std::string headers(text(event.headers, record.headers_bytes));
  if (payload.size() + key.size() + headers.size() + notes.size() > most) {
    // Better a letter without its payload than none: the whole one is in the dead-letter log.
    append_header(notes, "dead-letter-omitted-bytes", std::to_string(payload.size() + headers.size()));
    payload = {};
    headers.clear();
  }
  headers += notes;
  header.kind = static_cast<std::uint16_t>(RecordKind::event);
  header.sequence = letters.sequence + 1;
  if (payload.size() + key.size() + headers.size() > most)
    return true;  // headers beyond all bounds: only the log has it
  if (!write(letters, header, payload, key, headers)) return false;
  ++letters.sequence;
  if (fresh) letters.topics.emplace(topic, header.topic);
  return true;
}

/// Makes the publisher, or goes on with the one that a predecessor made.
void Exchange::open_letters() {
  Ingress* ingress = nullptr;
  for (const auto& one : publishers_) {
    if (one && one->own) ingress = one.get();
  }
  if (ingress == nullptr || ingress->ring_page == nullptr) {
    const PublisherGrant grant = open_publisher(0, letters_name, limits::default_ring_bytes,
                                                shm::PublisherState::exchange, control::Identity::own());
    ingress = publishers_[grant.slot].get();
  }
  auto letters = std::make_unique<LetterPublisher>();
  letters->ingress = ingress;
  letters->segment = shm::Segment::attach(directory_, ingress_name(ingress->slot, ingress->incarnation),
                                          shm::SegmentKind::ingress_ring, shm::Access::read_write);
  letters->page = letters->segment.as<shm::IngressRing>();
  std::byte* data = letters->segment.data() + shm::page_bytes;
  // relaxed: X's own word
  const std::uint64_t tail = letters->page->tail.load(std::memory_order_relaxed);
  letters->writer =
      ring::RingWriter(data, letters->page->ring_bytes, &letters->page->tail, tail, ingress->block.consumed);
  letters->sequence = ingress->block.sequence;
  letters->events = shm::events_of(ingress->block);
  for (std::size_t i = 0; i < ingress->routes.size(); ++i) {
    const Route* route = ingress->routes[i];
    if (route != nullptr) letters->topics.emplace(peers_->topics->text(route->topic), i + 1);
  }
  ring::RingReader reader(data, letters->page->ring_bytes, &letters->page->tail, ingress->block.consumed);
  while (const std::byte* record = reader.peek()) {
    const ring::EventParts event = ring::parts(record);
    if (event.header->kind == static_cast<std::uint16_t>(RecordKind::topic)) {
      letters->topics.emplace(text(event.payload, event.header->payload_bytes), event.header->topic);
    } else {
      letters->sequence = event.header->sequence;
      ++letters->events;
    }
    reader.advance(event.header->bytes);
  }
  peers_->letters = std::move(letters);
}

/// A dead letter has gone into the ring: then the log's mark goes behind it.
void Exchange::redo_announce(Queue& queue, std::uint64_t from) {
  const Ingress* own = nullptr;
  for (const auto& one : publishers_) {
    if (one && one->own && one->ring_page != nullptr) own = one.get();
  }
  if (own == nullptr || queue.block.n == n_) return;
  const shm::Sink& sink = own->first().sink;
  if (sink.n.load(std::memory_order_acquire) != n_) return;  // acquire(sink.n): base belongs to n
  // relaxed: X's own words
  if (own->ring_page->tail.load(std::memory_order_relaxed) == sink.base.load(std::memory_order_relaxed)) return;
  std::uint64_t position = from;
  const RecordHeader* record = queue.dead.at(position);
  if (record == nullptr) return;
  shm::Environment::at(shm::CrashPoint::redo_announce);
  touch(queue);
  queue.block.dead_published = log::SegmentLog::next(position, *record);
  commit_sinks();
}

/// A dead letter that could come back to where it died would go round for ever. Throws Error (invalid_argument).
void Exchange::check_letter_cycle(const SubscriptionOptions& options) const {
  const auto goes_to = [](const std::string& topic, const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(),
                       [&topic](const std::string& pattern) { return control::matches(pattern, topic); });
  };
  std::vector<std::string> ways;  // topics that dead letters of this subscription can come to
  if (!options.dead_letter_topic.empty()) ways.push_back(options.dead_letter_topic);
  for (std::size_t i = 0; i < ways.size(); ++i) {
    if (goes_to(ways[i], options.patterns)) {
      throw Error(ErrorCode::invalid_argument, "subscription '" + options.name + "'",
                  "its dead letters would come back to it, by topic '" + ways[i] + "'",
                  "use a dead-letter topic that its patterns do not match");
    }
    for (const auto& queue : queues_) {
      if (!queue || queue->options.name == options.name || queue->options.dead_letter_topic.empty()) continue;
      if (!goes_to(ways[i], queue->options.patterns)) continue;
      const std::string& next = queue->options.dead_letter_topic;
      if (std::find(ways.begin(), ways.end(), next) == ways.end()) ways.push_back(next);
    }
  }
}

}  // namespace ackring::exchange
