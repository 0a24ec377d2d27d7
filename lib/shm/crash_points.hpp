// The named points of the flow: where a step begins, and where the system is asked to change a file. Tests that let a
// process die anywhere print how often each was the place, and fail where one was never (tests/exchange/enumerate.hpp).
//
// A step's name belongs to the stores from there to the next named step; a call's name to the moment before that call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ackring::shm {

#define ACKRING_CRASH_POINTS(POINT) \
  /* calls that change files */ \
  POINT(file_create, "file.create") \
  POINT(file_allocate, "file.allocate") \
  POINT(file_write, "file.write") \
  POINT(file_rename, "file.rename") \
  POINT(file_remove, "file.remove") \
  /* a publisher */ \
  POINT(publish_topic, "publish.topic") \
  POINT(publish_record, "publish.record") \
  POINT(publish_tail, "publish.tail") \
  /* a member */ \
  POINT(take_taken, "take.taken") \
  POINT(verdict_word, "verdict.word") \
  POINT(verdict_reason, "verdict.reason") \
  POINT(verdict_extend, "verdict.extend") \
  POINT(verdict_through, "verdict.through") \
  POINT(verdict_released, "verdict.released") \
  /* every transaction of the exchange */ \
  POINT(transaction_intent, "transaction.intent") \
  POINT(transaction_sink, "transaction.sink") \
  POINT(transaction_commit, "transaction.commit") \
  POINT(transaction_counters, "transaction.counters") \
  /* the flow */ \
  POINT(route_topic, "route.topic") \
  POINT(route_source, "route.source") \
  POINT(deliver_record, "deliver.record") \
  POINT(backlog_spill, "backlog.spill") \
  POINT(backlog_pump, "backlog.pump") \
  POINT(settle_floor, "settle.floor") \
  POINT(settle_state, "settle.state") \
  POINT(retry_append, "retry.append") \
  POINT(retry_release, "retry.release") \
  POINT(retry_redeliver, "retry.redeliver") \
  POINT(retry_late_ack, "retry.late_ack") \
  POINT(retry_mark, "retry.mark") \
  POINT(retry_head, "retry.head") \
  POINT(expire_later, "expire.later") \
  POINT(dead_append, "dead.append") \
  POINT(dead_reasons, "dead.reasons") \
  POINT(dead_requeue, "dead.requeue") \
  POINT(dead_purge, "dead.purge") \
  POINT(dead_announce, "dead.announce") \
  POINT(group_hand, "group.hand") \
  POINT(group_park, "group.park") \
  POINT(group_revoke, "group.revoke") \
  POINT(last_values_clean, "last_values.clean") \
  POINT(last_values_begin, "last_values.begin") \
  POINT(event_ids_remember, "event_ids.remember") \
  POINT(event_ids_note, "event_ids.note") \
  /* those who come and go */ \
  POINT(attach_name, "attach.name") \
  POINT(attach_incarnation, "attach.incarnation") \
  POINT(detach_publisher, "detach.publisher") \
  POINT(retire_publisher, "retire.publisher") \
  POINT(join_ring, "join.ring") \
  POINT(join_ack_page, "join.ack_page") \
  POINT(join_member, "join.member") \
  POINT(leave_member, "leave.member") \
  POINT(leave_ring, "leave.ring") \
  /* those who operate */ \
  POINT(subscription_create, "subscription.create") \
  POINT(subscription_define, "subscription.define") \
  POINT(subscription_remove, "subscription.remove") \
  POINT(pause_set_aside, "pause.set_aside") \
  POINT(purge_discard, "purge.discard") \
  POINT(purge_forget, "purge.forget") \
  POINT(purge_backlog, "purge.backlog") \
  /* a successor */ \
  POINT(recover_begin, "recover.begin") \
  POINT(recover_subscriptions, "recover.subscriptions") \
  POINT(recover_publishers, "recover.publishers") \
  POINT(redo_route, "redo.route") \
  POINT(redo_pump, "redo.pump") \
  POINT(redo_move, "redo.move") \
  POINT(redo_source, "redo.source") \
  POINT(redo_clean, "redo.clean") \
  POINT(redo_announce, "redo.announce") \
  POINT(recover_strays, "recover.strays") \
  POINT(recover_end, "recover.end")

enum class CrashPoint : std::uint8_t {
#define ACKRING_POINT(identifier, name) identifier,
  ACKRING_CRASH_POINTS(ACKRING_POINT)
#undef ACKRING_POINT
};

inline constexpr std::array crash_point_names = {
#define ACKRING_POINT(identifier, name) name,
    ACKRING_CRASH_POINTS(ACKRING_POINT)
#undef ACKRING_POINT
};
#undef ACKRING_CRASH_POINTS

constexpr const char* name_of(CrashPoint point) noexcept { return crash_point_names[static_cast<std::size_t>(point)]; }

}  // namespace ackring::shm
