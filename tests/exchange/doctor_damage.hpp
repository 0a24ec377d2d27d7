// Damages to the files of a bus, each with the check that has to find it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/exchange/doctor_world.hpp"

namespace ackring::test {

using exchange::Gravity;
using shm::IngressBlock;
using shm::IngressCursor;
using shm::MemberRing;
using shm::RecordHeader;
using shm::RingBlock;
using shm::SegmentHeader;
using shm::ShardCursor;
using shm::SubscriptionBlock;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

inline constexpr exchange::DoctorOptions at_once{.looks = 3, .pause_ns = 0};
inline constexpr u64 huge = u64{1} << 50;

/// Of a field of the first shard, in the file.
constexpr u64 of_cursor(u64 field) { return offsetof(IngressCursor, shards) + field; }

struct Damage {
  const char* check;
  std::function<std::string(const Copy&)> make;  // answers the file in which it is to be found
};

inline bool found(const exchange::DoctorReport& report, const std::string& file, const std::string& check,
                  Gravity gravity = Gravity::violation) {
  for (const exchange::Finding& finding : report.findings) {
    if (finding.gravity == gravity && finding.file == file && finding.check == check) return true;
  }
  return false;
}

// Each damage on a copy of its own.
inline void check_all(const RichWorld& world, const std::vector<Damage>& damages,
                      const std::vector<std::string>& held = {}) {
  for (std::size_t i = 0; i < damages.size(); ++i) {
    const Copy copy = world.copy();
    const Held locks(*copy.directory, held);
    const std::string file = damages[i].make(copy);
    const exchange::DoctorReport report = exchange::examine(*copy.directory, at_once);
    INFO("damage " << i << " in " << file << ", " << std::string(damages[i].check) << "; found:\n"
                   << findings_of(report));
    CHECK(found(report, file, damages[i].check));
  }
}

// One that puts a value somewhere.
template <class T>
Damage put(const char* check, std::string Copy::*file, u64 offset, T value) {
  return {check, [=](const Copy& copy) {
            copy.put(copy.*file, offset, value);
            return copy.*file;
          }};
}
template <class T>
Damage put_in(const char* check, const char* file, u64 offset, T value) {
  return {check, [=](const Copy& copy) {
            copy.put(file, offset, value);
            return std::string(file);
          }};
}
// One more in a counter of the subscription.
inline Damage count(const char* check, u64 field, u64 more = 1) {
  return {check, [=](const Copy& copy) {
            copy.add_to_block(field, more);
            return copy.plain + ".state";
          }};
}
template <class T>
Damage in_state(const char* check, u64 offset, T value) {
  return {check, [=](const Copy& copy) {
            copy.put(copy.plain + ".state", offset, value);
            return copy.plain + ".state";
          }};
}
// A value in the record at the head of a log.
template <class T>
Damage in_log(const char* check, const char* log, u64 head_field, u64 offset, T value) {
  return {check, [=](const Copy& copy) {
            const std::string file = copy.plain + log + ".00000001";
            copy.put(file, copy.head_of(head_field) + offset, value);
            return std::string(check) == "delivery_twice" ? copy.plain + ".state" : file;
          }};
}

}  // namespace ackring::test
