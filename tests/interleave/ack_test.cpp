// The ack table: every verdict settles the delivery that it was given for, and bytes are used again only when the member
// has let go of them.
#include <doctest/doctest.h>

#include "tests/interleave/ack_scenario.hpp"

namespace ackring::test::interleave {
namespace {

constexpr auto ack = Verdict::ack;
constexpr auto nack = Verdict::nack;
constexpr auto reject = Verdict::reject;
constexpr auto timed_out = Verdict::none;

void check(const char* title, AckScenario::Plan plan, const Bounds& bounds = {}) {
  AckScenario scenario(std::move(plan));
  check_all(title, scenario, bounds);
}
void check_caught(const char* title, AckScenario::Plan plan, const char* why, const Bounds& bounds = {}) {
  AckScenario scenario(std::move(plan));
  check_caught(title, scenario, why, bounds);
}

const Steps one_by_one{{Act::take, 0}, {Act::ack, 0}, {Act::take, 1}, {Act::nack, 1}, {Act::take, 2}, {Act::ack, 2}};
const Steps in_bulk{{Act::take, 0}, {Act::take, 1}, {Act::through, 1}, {Act::take, 2}, {Act::through, 2}};
const Steps refused_then_passed{{Act::take, 0},    {Act::nack, 0}, {Act::take, 1},
                                {Act::through, 1}, {Act::take, 2}, {Act::reject, 2}};

TEST_CASE("ack table: verdicts one by one") {
  check("ack, one by one", {.taker = one_by_one, .outcome = {ack, nack, ack}});
}

TEST_CASE("ack table: laps pass 2^32 and entries 2^64") {
  const std::uint64_t lap_wrap = (std::uint64_t{1} << 32) * 2 - 1;
  check("ack, laps pass 2^32", {.start = lap_wrap, .taker = one_by_one, .outcome = {ack, nack, ack}});
  const std::uint64_t last = std::uint64_t{0} - 1;
  check("ack, entries pass 2^64", {.start = last, .taker = refused_then_passed, .outcome = {nack, ack, reject}});
}

TEST_CASE("ack table: acks in bulk") { check("ack, in bulk", {.taker = in_bulk, .outcome = {ack, ack, ack}}); }

TEST_CASE("ack table: a bulk ack passes what was refused") {
  check("ack, refused then passed", {.taker = refused_then_passed, .outcome = {nack, ack, reject}});
  check("ack, extended then passed",
        {.taker =
             {{Act::take, 0}, {Act::extend, 0}, {Act::take, 1}, {Act::reject, 1}, {Act::extend, 0}, {Act::through, 1}},
         .outcome = {ack, reject}});
}

TEST_CASE("ack table: a verdict that comes when the slot is of the next lap") {
  check("ack, late verdict", {.taker = {{Act::take, 0},
                                        {Act::detach, 0},
                                        {Act::take, 1},
                                        {Act::ack, 1},
                                        {Act::take, 2},
                                        {Act::nack, 2},
                                        {Act::late_ack, 0}},
                              .outcome = {timed_out, ack, nack}});
}

TEST_CASE("ack table: two threads of a member") {
  check("ack, a worker decides",
        {.taker = {{Act::take, 0}, {Act::signal, 1}, {Act::take, 1}, {Act::ack, 1}, {Act::take, 2}, {Act::ack, 2}},
         .worker = {{Act::wait, 1}, {Act::read, 0}, {Act::nack, 0}},
         .outcome = {nack, ack, ack}},
        {.preemptions = 1});
  check("ack, in bulk for a worker",
        {.taker = {{Act::take_unread, 0},
                   {Act::signal, 1},
                   {Act::take, 1},
                   {Act::wait, 2},
                   {Act::through, 1},
                   {Act::take, 2},
                   {Act::ack, 2}},
         .worker = {{Act::wait, 1}, {Act::read, 0}, {Act::signal, 2}},
         .outcome = {ack, ack, ack}},
        {.preemptions = 1});
}

// An extension never undoes the verdict that another thread gives meanwhile, whichever comes first.
TEST_CASE("ack table: extension against verdict") {
  for (const Act act : {Act::nack, Act::ack}) {
    check(act == Act::ack ? "ack, extension against ack" : "ack, extension against nack",
          {.taker = {{Act::take, 0}, {Act::signal, 1}, {Act::extend, 0}, {Act::extend, 0}},
           .worker = {{Act::wait, 1}, {act, 0}},
           .outcome = {act == Act::ack ? ack : nack}},
          {.preemptions = 2, .old_values = 1});
  }
}

TEST_CASE("ack table: at most once") {
  check("ack, at most once", {.taker = {{Act::take, 0}, {Act::take, 1}, {Act::take, 2}, {Act::take, 3}},
                              .outcome = {ack, ack, ack, ack},
                              .at_most_once = true});
}

TEST_CASE("ack table canaries") {
  check_caught("ack, refused before acked_through",
               {.taker = refused_then_passed, .outcome = {nack, ack, reject}, .looks = Looks::refused_first},
               "what nobody decided");
  check_caught("ack, taken before acked_through",
               {.taker = in_bulk, .outcome = {ack, ack, ack}, .looks = Looks::taken_first}, "ahead of the take");
  check_caught("ack, bytes of a delivery that is not let go",
               {.taker = one_by_one,
                .outcome = {ack, nack, ack},
                .outcome_may_differ = true,
                .looks = Looks::passes_what_is_not_let_go},
               "data race");
  check_caught("ack, verdict before the bytes are read",
               {.taker = {{Act::take_unread, 0},
                          {Act::ack, 0},
                          {Act::read, 0},
                          {Act::take, 1},
                          {Act::ack, 1},
                          {Act::take, 2},
                          {Act::ack, 2}},
                .outcome = {ack, ack, ack}},
               "data race");
  check_caught("ack, nothing hands the view over to the worker",
               {.taker = {{Act::take, 0}, {Act::take, 1}, {Act::through, 1}, {Act::take, 2}, {Act::ack, 2}},
                .worker = {{Act::read, 0}},
                .outcome = {ack, ack, ack}},
               "data race");
}

}  // namespace
}  // namespace ackring::test::interleave
