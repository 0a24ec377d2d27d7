// Sound: is what an exchange finds in a file of its own what an exchange writes there? Recovery asks before it believes: the
// rest of the core trusts these files, follows their positions and copies their records without a further look.
//
// The checks are about memory and endless loops, not about bits: a damaged payload goes unnoticed, and so does a number
// that could be right. Thread rules: any thread; they change nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ackring/error.hpp"
#include "ackring/options.hpp"
#include "lib/control/topic_table.hpp"
#include "lib/log/segment_log.hpp"
#include "lib/ring/record.hpp"
#include "lib/shm/format.hpp"
#include "lib/shm/segment.hpp"

namespace ackring::exchange {

/// Numbers of files, clients and transactions grow by one, and may not wrap.
inline constexpr std::uint64_t largest_number = ~std::uint64_t{0} << 32;

/// What records of the bus may refer to.
struct Known {
  const shm::ExchangeSegment& page;
  const control::TopicTable& topics;
};

/// "sub.12.json", prefix 4 → 12; 0 where there is no number.
[[nodiscard]] std::uint64_t number_after(std::string_view name, std::size_t prefix) noexcept;
/// What keeps a file from being read just now is no damage of it.
[[nodiscard]] bool passes(ErrorCode code) noexcept;

/// Throws Error (damaged) where the file is shorter than `least` bytes.
void check_bytes(const shm::Segment& segment, std::uint64_t least);
/// Throws Error (damaged) where the page of the exchange can't be one.
void check_exchange(const shm::Segment& segment);
/// Throws Error (damaged) where the sizes of a ring are not those that its subscription asks for.
void check_ring_sizes(const shm::Segment& segment, const SubscriptionOptions& options);

/// Do the parts of this record lie in `available` bytes from its beginning on, and fill it? `later`: it is one of a retry
/// or dead-letter log.
[[nodiscard]] bool is_sound(const shm::RecordHeader& record, std::uint64_t available, bool later) noexcept;

/// Looks at the records of a member ring, whatever lies there; its sizes have been checked.
class RingWalk {
 public:
  RingWalk(const std::byte* data, const shm::MemberRing& ring, std::uint64_t floor) noexcept;
  /// The next record; nullptr at the tail, and where there is none that is sound.
  [[nodiscard]] const shm::RecordHeader* next() noexcept;
  /// Behind the last record.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
  [[nodiscard]] bool at_tail() const noexcept { return position_ == tail_; }

 private:
  const std::byte* data_;
  std::uint64_t ring_bytes_;
  std::uint64_t position_;
  std::uint64_t tail_;
};

/// Walks the records of a member ring from `floor` to the tail; `each` is called with the position behind each of them.
/// Throws Error (damaged) at one that is not sound, or where `base` is not the beginning of one or the tail.
void check_ring(const std::byte* data, const shm::MemberRing& ring, std::uint64_t floor, const std::uint64_t* base,
                const std::string& name, const Known& known, const std::function<void(std::uint64_t position)>& each);

/// What a log holds that has not left it.
struct LogCount {
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;
  std::uint64_t untaken_events = 0;
  std::uint64_t untaken_bytes = 0;
};
/// Walks a log. Throws Error (damaged) at a record that is not sound, and where one of `begins` that lies in the log is not
/// the beginning of a record.
LogCount check_log(const log::SegmentLog& log, std::uint64_t head, bool later, const std::vector<std::uint64_t>& begins,
                   const std::string& name, const Known& known);

/// Throws Error (damaged) where the numbers of a subscription can't be those of an exchange with this page.
void check_block(const shm::SubscriptionSegment& state, const shm::SubscriptionBlock& block,
                 const shm::ExchangeSegment& page, const std::string& name);

}  // namespace ackring::exchange
