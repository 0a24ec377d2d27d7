#include "lib/log/segment_log.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

#include "ackring/error.hpp"

namespace ackring::log {
namespace {

using shm::log_data_offset;
using shm::record_alignment;
using shm::RecordKind;

// A record of 16 bytes that closes a segment: the first fields of a RecordHeader.
struct SegmentEnd {
  std::uint32_t bytes;
  std::uint16_t kind;
  std::uint16_t flags;
  std::uint64_t reserved;
};
static_assert(sizeof(SegmentEnd) == record_alignment);

constexpr std::size_t growth_limit = 16;  // largest segment, as a multiple of segment_bytes
constexpr std::size_t segments_per_size = 4;
constexpr std::uint32_t last_number = std::numeric_limits<std::uint32_t>::max();

constexpr std::uint32_t number_of(std::uint64_t position) noexcept {
  return static_cast<std::uint32_t>(position >> 32);
}
constexpr std::size_t offset_of(std::uint64_t position) noexcept { return position & 0xffff'ffffu; }
constexpr std::uint64_t position_of(std::uint32_t number, std::size_t offset) noexcept {
  return std::uint64_t{number} << 32 | offset;
}
constexpr std::size_t whole_pages(std::size_t bytes) noexcept {
  return (bytes + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
}
// Of the segment that is made while the log holds so many.
constexpr std::size_t size_after(std::size_t held, std::size_t segment_bytes) noexcept {
  std::size_t factor = 1;
  for (std::size_t step = segments_per_size; step < held && factor < growth_limit; step += segments_per_size)
    factor *= 2;
  return segment_bytes * factor;
}
constexpr bool possible(std::uint64_t position) noexcept {
  return position >= first_position && offset_of(position) >= log_data_offset &&
         offset_of(position) % record_alignment == 0;
}

// The number in `name`, which begins with `prefix` and a dot; 0 if the rest is not a number as file_name() writes it.
std::uint32_t parse_number(const std::string& name, std::size_t prefix_bytes) noexcept {
  const char* begin = name.data() + prefix_bytes + 1;
  const char* end = name.data() + name.size();
  std::uint32_t number = 0;
  const auto [stop, error] = std::from_chars(begin, end, number);
  return end - begin >= 8 && stop == end && error == std::errc{} ? number : 0;
}

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "ackring: segment log: %s\n", what);
  std::abort();
}

}  // namespace

SegmentLog::SegmentLog(shm::Directory& directory, std::string prefix, std::uint64_t generation,
                       std::size_t segment_bytes)
    : directory_(&directory),
      prefix_(std::move(prefix)),
      generation_(generation),
      segment_bytes_(whole_pages(std::max<std::size_t>(segment_bytes, 1))) {}

SegmentLog::SegmentLog(SegmentLog&& other) noexcept
    : directory_(other.directory_),
      prefix_(std::move(other.prefix_)),
      generation_(other.generation_),
      segment_bytes_(other.segment_bytes_),
      tail_(other.tail_),
      segments_(std::move(other.segments_)) {
  other.segments_.clear();
  other.found_ = nullptr;
}

SegmentLog& SegmentLog::operator=(SegmentLog&& other) noexcept {
  if (this != &other) {
    directory_ = other.directory_;
    prefix_ = std::move(other.prefix_);
    generation_ = other.generation_;
    segment_bytes_ = other.segment_bytes_;
    tail_ = other.tail_;
    segments_ = std::move(other.segments_);
    other.segments_.clear();
    found_ = nullptr;
    other.found_ = nullptr;
  }
  return *this;
}

SegmentLog::~SegmentLog() = default;

void SegmentLog::open(std::uint64_t head, std::uint64_t tail) { open(head, tail, directory_->list(prefix_ + '.')); }

void SegmentLog::open(std::uint64_t head, std::uint64_t tail, const std::vector<std::string>& names) {
  if (head == 0) head = first_position;
  if (tail == 0) tail = first_position;
  if (!possible(head) || !possible(tail) || head > tail) {
    throw Error(ErrorCode::damaged, directory_->path(prefix_),
                "its head " + std::to_string(head) + " and tail " + std::to_string(tail) + " are not those of a log",
                "keep a copy of the bus directory and remove the subscription");
  }
  std::map<std::uint32_t, shm::Segment> attached;
  if (head != tail) {
    for (std::uint64_t number = number_of(head); number <= number_of(tail); ++number) {
      const auto segment_number = static_cast<std::uint32_t>(number);
      const std::string name = file_name(segment_number);
      const auto damaged = [&](const std::string& why) {
        return Error(ErrorCode::damaged, directory_->path(name), why,
                     "keep a copy of the bus directory and remove the subscription");
      };
      if (std::find(names.begin(), names.end(), name) == names.end()) throw damaged("this segment of a log is missing");
      auto segment = shm::Segment::attach(*directory_, name, shm::SegmentKind::log, shm::Access::read_write);
      segment.close_fd();  // the mapping is all that is needed; many logs must not use up the descriptors
      if (segment.header().owner != number) {
        throw damaged("it says to be segment " + std::to_string(segment.header().owner) + " of its log");
      }
      const std::size_t used = std::max(number == number_of(head) ? offset_of(head) : std::size_t{0},
                                        number == number_of(tail) ? offset_of(tail) : std::size_t{0});
      if (segment.bytes() < log_data_offset || segment.bytes() < used) {
        throw damaged("it has " + std::to_string(segment.bytes()) + " bytes, the log goes on to " +
                      std::to_string(used));
      }
      attached.emplace(segment_number, std::move(segment));
    }
  }
  // Whatever else bears the log's name was made by a process that died before it committed anything in it, or was
  // released already: no byte of it counts.
  for (const std::string& name : names) {
    if (name.size() <= prefix_.size() || name[prefix_.size()] != '.' || !name.starts_with(prefix_)) continue;
    const std::uint32_t number = parse_number(name, prefix_.size());
    if (number == 0 || name != file_name(number) || !attached.contains(number)) directory_->remove(name);
  }
  segments_ = std::move(attached);
  found_ = nullptr;
  tail_ = tail;
}

bool SegmentLog::reserve(std::size_t bytes) {
  if (bytes > max_record_bytes) return false;
  const std::uint32_t number = number_of(tail_);
  const shm::Segment* current = find(number);
  if (current == nullptr) {
    // Only an empty log lacks the segment of its tail (invariant 2); it is made again, so that the tail stays where it
    // is, but never larger than the tail asks for: else a log that runs empty again and again would grow its files.
    if (!make_segment(number, offset_of(tail_))) return false;
    current = find(number);
  }
  if (offset_of(tail_) + bytes <= current->bytes()) return true;
  if (number == last_number) return false;
  const shm::Segment* following = find(number + 1);
  if (following != nullptr && log_data_offset + bytes <= following->bytes()) return true;
  return make_segment(number + 1, log_data_offset + bytes);
}

std::byte* SegmentLog::append(std::size_t bytes) {
  if (bytes == 0 || bytes % record_alignment != 0) broken("append of a size that is no multiple of 16");
  const shm::Segment* segment = find(number_of(tail_));
  if (segment == nullptr) broken("append without reserve");
  std::size_t offset = offset_of(tail_);
  if (offset + bytes > segment->bytes()) {
    const std::uint32_t following = number_of(tail_) + 1;
    const shm::Segment* next_segment = find(following);
    if (next_segment == nullptr || log_data_offset + bytes > next_segment->bytes()) broken("append without reserve");
    const std::size_t left = segment->bytes() - offset;
    if (left >= sizeof(SegmentEnd)) {
      const SegmentEnd end{static_cast<std::uint32_t>(left), static_cast<std::uint16_t>(RecordKind::segment_end), 0, 0};
      shm::shared_copy(segment->data() + offset, &end, sizeof end);
    }
    segment = next_segment;
    offset = log_data_offset;
    tail_ = position_of(following, offset);
  }
  tail_ += bytes;
  return segment->data() + offset;
}

void SegmentLog::truncate(std::uint64_t tail) noexcept {
  if (tail == 0) tail = first_position;
  if (tail > tail_) broken("truncate behind the tail");
  tail_ = tail;
}

const RecordHeader* SegmentLog::at(std::uint64_t& position) const noexcept {
  if (position < first_position) position = first_position;
  while (position < tail_) {
    const shm::Segment* segment = find(number_of(position));
    const std::size_t offset = offset_of(position);
    if (segment == nullptr || !possible(position) || offset > segment->bytes()) return nullptr;
    const std::size_t left = segment->bytes() - offset;
    if (left >= sizeof(SegmentEnd)) {
      const auto* record = segment->as<const RecordHeader>(offset);
      if (record->kind != static_cast<std::uint16_t>(RecordKind::segment_end)) {
        const bool sound = record->kind != static_cast<std::uint16_t>(RecordKind::none) &&
                           left >= sizeof(RecordHeader) && record->bytes >= sizeof(RecordHeader) &&
                           record->bytes % record_alignment == 0 && record->bytes <= left &&
                           position + record->bytes <= tail_;
        return sound ? record : nullptr;
      }
    }
    if (number_of(position) >= number_of(tail_)) return nullptr;
    position = position_of(number_of(position) + 1, log_data_offset);
  }
  return nullptr;
}

void SegmentLog::release_below(std::uint64_t head) noexcept(shm::Environment::dies_nowhere) {
  const std::uint32_t keep = std::min(number_of(head), number_of(tail_));
  if (keep > 0) remove_segments(0, keep - 1);
}

void SegmentLog::trim(std::uint64_t head) noexcept(shm::Environment::dies_nowhere) {
  release_below(head);
  if (head == 0) head = first_position;
  if (head == tail_) {
    remove_all();
  } else if (number_of(tail_) < last_number) {
    remove_segments(number_of(tail_) + 1, last_number);
  }
}

void SegmentLog::remove_all() noexcept(shm::Environment::dies_nowhere) { remove_segments(0, last_number); }

std::uint64_t SegmentLog::file_bytes() const noexcept {
  std::uint64_t total = 0;
  for (const auto& [number, segment] : segments_) total += segment.bytes();
  return total;
}

std::string SegmentLog::file_name(std::uint32_t number) const {
  std::string digits = std::to_string(number);
  if (digits.size() < 8) digits.insert(0, 8 - digits.size(), '0');
  return prefix_ + '.' + digits;
}

const shm::Segment* SegmentLog::find(std::uint32_t number) const noexcept {
  if (found_ != nullptr && found_number_ == number) return found_;
  const auto place = segments_.find(number);
  if (place == segments_.end()) return nullptr;
  found_number_ = number;
  found_ = &place->second;
  return found_;
}

std::size_t SegmentLog::next_segment_bytes() const noexcept { return size_after(segments_.size(), segment_bytes_); }

LogFiles SegmentLog::most_files(std::uint64_t record_bytes, std::uint64_t largest_record,
                                std::size_t segment_bytes) noexcept {
  LogFiles most;
  if (record_bytes == 0) return most;
  for (std::uint64_t room = 0; room < record_bytes; ++most.files) {
    const std::size_t bytes = size_after(most.files, segment_bytes);
    const std::uint64_t data = bytes - log_data_offset;
    // What is left over at its end is less than a record, and less than half of it: else one more would have fitted.
    room += std::max(data - std::min(data, largest_record), data / 2);
    most.bytes += bytes;
  }
  // The head's segment may hold its last record only, and the one behind the tail's nothing yet.
  most.bytes += 2 * std::max(size_after(most.files, segment_bytes), whole_pages(log_data_offset + largest_record));
  most.files += 2;
  return most;
}

bool SegmentLog::make_segment(std::uint32_t number, std::size_t least_bytes) {
  const std::size_t least = std::max(whole_pages(least_bytes), segment_bytes_);
  std::size_t bytes = std::max(least, next_segment_bytes());
  for (;;) {
    try {
      auto segment =
          shm::Segment::create(*directory_, file_name(number), shm::SegmentKind::log, bytes, generation_, number);
      segment.close_fd();
      found_ = nullptr;
      segments_.insert_or_assign(number, std::move(segment));
      return true;
    } catch (const Error&) {
      // A nearly full file system may still have room for a small segment.
      if (bytes == least) return false;
      bytes = least;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
}

void SegmentLog::remove_segments(std::uint32_t first, std::uint32_t last) noexcept(shm::Environment::dies_nowhere) {
  found_ = nullptr;
  for (auto place = segments_.lower_bound(first); place != segments_.end() && place->first <= last;) {
    directory_->remove(file_name(place->first));
    place = segments_.erase(place);
  }
}

}  // namespace ackring::log
