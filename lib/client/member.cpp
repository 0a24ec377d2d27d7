// What of a member is not hot: joining, waiting, descriptors, detached entries, resuming.
#include "lib/client/member.hpp"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "lib/client/wait.hpp"
#include "lib/control/subscription_codec.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::client {
namespace {

// Where the records of a member ring begin: behind its state bytes.
constexpr std::uint64_t records_offset(std::uint64_t slots) noexcept {
  return shm::page_bytes + (slots + shm::page_bytes - 1) / shm::page_bytes * shm::page_bytes;
}

}  // namespace

Member::Member(std::shared_ptr<Connection> connection, Wait wait)
    : backoff_(wait), connection_(std::move(connection)) {}

Member::~Member() {
  leave();
  const ForkGuard::Hold held = ForkGuard::hold();
  for (const std::size_t index : {0, 1, 2}) guard_.track(held, index, -1);
  bell_ = {};
  epoll_.reset();
  news_.reset();
}

void Member::join(const SubscriptionOptions& options) {
  control::check_options(options);
  if (options.name.empty() && options.patterns.empty()) {
    throw Error(ErrorCode::invalid_argument, "SubscriptionOptions::patterns",
                "a subscription without a name needs at least one", "give a pattern, such as #");
  }
  ephemeral_ = options.name.empty();
  Reply reply = connection_->request({{"op", "subscribe"},
                                      {"name", options.name},
                                      {"ephemeral", ephemeral_},
                                      {"patterns", options.patterns},
                                      {"options", control::options_to_json(options)},
                                      {"given", control::given_options(options)}});
  subscription_ = reply_field<std::uint64_t>(reply.body, "subscription");
  ack_incarnation_ = reply_field<std::uint64_t>(reply.body, "ack_page");
  name_ = reply_field<std::string>(reply.body, "name");
  MemberStart start;
  start.entry = reply_field<std::uint64_t>(reply.body, "entry");
  start.position = reply_field<std::uint64_t>(reply.body, "position");
  const SubscriptionOptions effective =
      control::options_from_json(name_, options.patterns, reply_field<Json>(reply.body, "options"));
  start.at_most_once = effective.guarantee == Guarantee::at_most_once;
  ack_timeout_ns_ = static_cast<std::uint64_t>(effective.ack_timeout.count());
  try {
    take_over(reply, start);
  } catch (...) {
    // The exchange takes this for a member: it gives the place back.
    connection_->post({{"op", "unsubscribe"}, {"subscription", subscription_}, {"ack_page", ack_incarnation_}});
    throw;
  }
  connection_->add(*this, reply.epoch);
}

void Member::take_over(Reply& reply, const MemberStart& start) {
  shm::Segment ring =
      shm::Segment::attach(reply.take(0), "member ring", shm::SegmentKind::member_ring, shm::Access::read_only);
  shm::Segment page =
      shm::Segment::attach(reply.take(1), "ack page", shm::SegmentKind::ack_page, shm::Access::read_write);
  page.close_fd();
  shm::UniqueFd bell = reply.take(2);
  guard_.track(reply.no_fork, 0, bell.get());
  reply.no_fork.unlock();
  adopt(std::move(ring), std::move(page), shm::Bell(std::move(bell)), connection_->view(), start);
}

void Member::adopt(shm::Segment ring, shm::Segment ack_page, shm::Bell bell, std::shared_ptr<const BusView> view,
                   const MemberStart& start) {
  const auto* header = ring.as<const shm::MemberRing>();
  const auto* page = ack_page.as<const shm::AckPage>();
  if (!std::has_single_bit(header->ring_bytes) || !std::has_single_bit(header->slots) ||
      ring.bytes() < records_offset(header->slots) + header->ring_bytes || page->slots != header->slots ||
      ack_page.bytes() < ring::ack_page_bytes(page->slots)) {
    throw Error(ErrorCode::damaged, ring.name(), "its size is not what its header says", "restart the exchange");
  }
  ring_segment_ = std::move(ring);
  ack_segment_ = std::move(ack_page);
  bell_ = std::move(bell);
  view_ = std::move(view);
  ring_ = ring_segment_.as<const shm::MemberRing>();
  page_ = ack_segment_.as<shm::AckPage>();
  ack_ = ring::AckWriter(page_);
  sampler_.measure_into(ack_.latency(), start.entry);
  reader_ = ring::RingReader(ring_segment_.data() + records_offset(ring_->slots), ring_->ring_bytes, &ring_->tail,
                             start.position);
  fence_required_ = &view_->segment().fence_required;
  entry_ = start.entry;
  released_ = released_by_detach_ = start.entry;
  at_most_once_ = start.at_most_once;
}

void Member::leave() noexcept {
  if (ring_ == nullptr || guard_.gone() == Gone::left || guard_.gone() == Gone::forked) return;
  const bool known = guard_.open();
  guard_.close(Gone::left);
  if (connection_ == nullptr) return;
  connection_->remove(*this);
  if (!known) return;
  try {
    Json farewell{{"op", "unsubscribe"}, {"subscription", subscription_}, {"ack_page", ack_incarnation_}};
    if (connection_->connected()) {
      (void)connection_->request(std::move(farewell));
    } else {
      connection_->post(std::move(farewell));  // for the successor, whenever that comes
    }
  } catch (...) {
    // The exchange is gone, or does not know it; the client's lock tells its successor.
  }
}

bool Member::wait_for_record(Nanoseconds timeout) {
  if (timeout.count() <= 0) {
    reader_.prefetch();
    return arm();
  }
  const std::uint64_t deadline = deadline_after(timeout);
  for (std::uint32_t round = 1;; ++round) {
    if (reader_.peek() != nullptr) {
      backoff_.found();
      return true;
    }
    if (!guard_.open()) return false;
    reader_.prefetch();
    const shm::Backoff::Step step = backoff_.wait();
    if (step == shm::Backoff::Step::spin && round % rounds_per_clock != 0) continue;
    const std::uint64_t now = shm::Environment::now_ns();
    if (now >= deadline) {
      backoff_.gave_up();
      return arm();
    }
    if (step != shm::Backoff::Step::park) continue;
    ack_.parked().store(1, std::memory_order_relaxed);  // relaxed: ordered by the park protocol (shm/park.hpp)
    shm::barrier_for_parker();
    const bool there = reader_.peek() != nullptr;
    if (!there) (void)bell_.wait(std::min(deadline - now, longest_park_ns));
    sampler_.slept();
    ack_.parked().store(0, std::memory_order_relaxed);  // relaxed: a late look costs one ring of the bell
    backoff_.woke(shm::Environment::now_ns());
  }
}

// Nothing is there and nobody waits any longer. Where the user polls fd(), the next delivery must ring.
bool Member::arm() {
  if (polled_.load(std::memory_order_relaxed) == 0) return reader_.peek() != nullptr;  // relaxed: own thread's, by fd()
  {
    const std::lock_guard lock(mutex_);
    std::uint64_t count = 0;
    (void)!::read(news_.get(), &count, sizeof count);
    // A bell whose other end is closed would be readable without end; its successor is watched again.
    if (!bell_.drain()) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, bell_.fd(), nullptr);
  }
  ack_.parked().store(1, std::memory_order_relaxed);  // relaxed: ordered by the park protocol (shm/park.hpp)
  armed_ = true;
  sampler_.slept();
  shm::barrier_for_parker();
  return reader_.peek() != nullptr;
}

void Member::disarm() {
  armed_ = false;
  ack_.parked().store(0, std::memory_order_relaxed);  // relaxed: a late look costs one ring of the bell
}

int Member::fd() {
  const ForkGuard::Hold held = ForkGuard::hold();  // before `mutex_`, as the keeper does in resumed()
  const std::lock_guard lock(mutex_);
  if (epoll_ || !guard_.open()) return epoll_.get();
  shm::UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  shm::UniqueFd news(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));  // readable at first: there may be something already
  epoll_event event{};
  event.events = EPOLLIN;
  if (!epoll || !news || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, news.get(), &event) != 0) {
    throw shm::system_error("subscription '" + name_ + "'", "can't make a descriptor to poll", errno);
  }
  watch_bell(epoll.get());
  guard_.track(held, 1, epoll.get());
  guard_.track(held, 2, news.get());
  epoll_ = std::move(epoll);
  news_ = std::move(news);
  polled_.store(1, std::memory_order_relaxed);  // relaxed: read by the taking thread, which this is
  return epoll_.get();
}

void Member::watch_bell(int epoll) {
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, bell_.fd(), &event) != 0 && errno != EEXIST) {
    throw shm::system_error("subscription '" + name_ + "'", "can't watch its doorbell", errno);
  }
}

void Member::make_fd_readable() noexcept {
  const std::uint64_t one = 1;
  if (news_) (void)!::write(news_.get(), &one, sizeof one);
}

Outcome Member::flush(Nanoseconds timeout) {
  if (!guard_.open()) return Outcome::closed;
  try {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(timeout.count(), 0));
    (void)connection_->request({{"op", "settle"}, {"subscription", subscription_}, {"ack_page", ack_incarnation_}}, ns);
    return Outcome::ok;
  } catch (const Error& error) {
    const bool late = error.code() == ErrorCode::timeout || error.code() == ErrorCode::no_exchange;
    return late ? Outcome::timed_out : Outcome::closed;
  } catch (...) {
    return Outcome::timed_out;
  }
}

void Member::detached(std::uint64_t entry) {
  if (at_most_once_ || !guard_.open()) return;  // the next take releases it
  {
    const std::lock_guard lock(mutex_);
    detached_.insert(entry);
    // relaxed: a verdict that does not see it yet leaves the work to the next one, or to the exchange's settling
    detached_count_.store(static_cast<std::uint32_t>(detached_.size()), std::memory_order_relaxed);
  }
  advance_released();
  notify_exchange();
}

// Moves `released` over entries whose views are gone, by verdict or detach(). Only needed while something is detached:
// otherwise the verdicts themselves tell.
void Member::advance_released() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t taken = page_->taken.load(std::memory_order_relaxed);  // relaxed: of this process, only grows
  const std::uint64_t through = ack_.acked_through();
  std::uint64_t entry = released_by_detach_;
  // The exchange never has more entries open than there are slots, so older ones are settled and let go.
  if (taken - entry > page_->slots) entry = taken - page_->slots;
  const auto passed = [&] {
    return static_cast<std::int64_t>(through - entry) > 0 || ack_.decided(entry) || detached_.contains(entry);
  };
  while (entry != taken && passed()) ++entry;
  if (entry == released_by_detach_) return;
  released_by_detach_ = entry;
  detached_.erase(detached_.begin(), detached_.lower_bound(entry));
  // relaxed: see detached()
  detached_count_.store(static_cast<std::uint32_t>(detached_.size()), std::memory_order_relaxed);
  ack_.released(entry);
}

void Member::show_breaker(shm::BreakerState state, std::uint32_t failures, std::uint64_t since_ns,
                          std::uint64_t opened) {
  if (!guard_.open()) return;
  // relaxed, to the end: notices for people, of which each is true by itself
  page_->breaker_failures.store(failures, std::memory_order_relaxed);
  page_->breaker_since_ns.store(since_ns, std::memory_order_relaxed);
  page_->breaker_opened.store(opened, std::memory_order_relaxed);
  page_->breaker.store(static_cast<std::uint32_t>(state), std::memory_order_relaxed);
}

shm::BreakerOrder Member::breaker_order() const noexcept {
  if (!guard_.open()) return shm::BreakerOrder::none;
  // relaxed: a word by itself
  return static_cast<shm::BreakerOrder>(ring_->breaker_order.load(std::memory_order_relaxed));
}

Json Member::resume_request() const {
  return {{"op", "subscribe"},
          {"name", name_},
          {"ephemeral", ephemeral_},
          {"patterns", Json::array()},
          {"options", Json::object()},
          {"given", Json::array()},
          {"resume", {{"subscription", subscription_}, {"ack_page", ack_incarnation_}}}};
}

void Member::resumed(shm::UniqueFd bell) {
  const std::lock_guard lock(mutex_);
  // The number stays, so the taking thread needs no lock; the old bell's other end is gone.
  bell_.replace(bell);
  if (epoll_) watch_bell(epoll_.get());
  make_fd_readable();
  (void)bell_.ring();  // verdicts given meanwhile
}

void Member::refused() {
  guard_.close(Gone::closed);
  const std::lock_guard lock(mutex_);
  make_fd_readable();
}

}  // namespace ackring::client
