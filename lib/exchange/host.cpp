#include "lib/exchange/host.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "ackring/error.hpp"
#include "lib/exchange/counter_watch.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/exchange/service.hpp"
#include "lib/exchange/shard_threads.hpp"
#include "lib/exchange/snapshot.hpp"
#include "lib/shm/backoff.hpp"
#include "lib/shm/bus_error_guard.hpp"
#include "lib/shm/lock.hpp"
#include "lib/shm/park.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring::exchange {

namespace {

constexpr std::uint64_t control_busy_ns = 100'000;  // between looks at the sockets while events flow, at least, …
constexpr std::uint64_t control_part = 4;           // … and so many times as long as the last one took
constexpr std::uint64_t longest_look_ns = 500'000;  // at clients' requests; one of them may take longer
constexpr std::uint64_t flow_ns = 10'000'000;       // events that came this long ago still count as flowing
constexpr int accepts_per_look = 16;

const char* const lock_file = "exchange.lock";

}  // namespace

struct Host::State {
  std::shared_ptr<shm::Directory> directory;
  std::string bus;
  HostOptions options;
  shm::UniqueFd lock;
  shm::UniqueFd epoll;
  shm::UniqueFd stop_event;
  shm::Word32 stopping{};
  std::unique_ptr<Exchange> exchange;
  std::unique_ptr<ShardThreads> shards;  // nullptr: there is one
  std::unique_ptr<Service> service;
  control::Listener listener;
  std::mutex waiting_mutex;
  std::vector<control::Socket> waiting;      // from connect(), until the loop takes them
  std::vector<std::function<void()>> calls;  // … and from call()
  std::uint64_t next_tick_ns = 0;
  std::uint64_t next_control_ns = 0;
  std::uint64_t moved_ns = 0;            // when events last moved
  Account newcomers;                     // what accepting them takes
  std::optional<CounterWatch> counters;  // if somebody wants to know

  void watch(int fd, epoll_event& event) const;
  void wake() const noexcept;
  void accept_some();
  void tell();
  void poll_control(int timeout_ms);
  void tick(std::uint64_t now_ns);
  void take_waiting();
};

bool is_served(const shm::Directory& directory) {
  if (!directory.exists(lock_file)) return false;
  try {
    return shm::is_locked(directory.open(lock_file, false).get());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::no_space || error.code() == ErrorCode::system) throw;  // it may be served
    return false;
  }
}

Host::Host(std::shared_ptr<shm::Directory> directory, std::string bus, HostOptions options)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.directory = std::move(directory);
  state.bus = std::move(bus);
  state.options = std::move(options);
  state.lock = state.directory->open_or_create(lock_file);
  if (!shm::try_lock(state.lock.get())) {
    const std::string owner = state.directory->read_file(lock_file);
    throw Error(ErrorCode::exchange_exists, "bus '" + state.bus + "'",
                "process " + (owner.empty() ? "?" : owner.substr(0, owner.find('\n'))) + " serves it",
                "stop that one, or use another bus");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(state.lock.get(), 0) != 0 ||
      ::pwrite(state.lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    throw Error(ErrorCode::system, state.directory->path(lock_file), "can't write the owner's pid into it", {}, errno);
  }
  state.epoll = shm::UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  state.stop_event = shm::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state.epoll || !state.stop_event) {
    throw Error(ErrorCode::no_space, "exchange", "no descriptors left", "raise the limit of open files", errno);
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = tag(Source::stop, 0);
  state.watch(state.stop_event.get(), event);

  if (state.options.guard_bus_errors) {  // before anything of a client is mapped
    shm::guard_bus_errors();
    shm::unblock_bus_errors();
  }
  const bool membarrier = shm::register_membarrier();
  state.exchange = Exchange::open(*state.directory, state.options.access, state.options.shards);
  shm::ExchangeSegment& page = state.exchange->page();
  // relaxed: notices
  page.pid.store(static_cast<std::uint64_t>(::getpid()), std::memory_order_relaxed);
  page.started_unix_ns.store(unix_now_ns(), std::memory_order_relaxed);       // relaxed: a notice
  page.tick_ns.store(shm::Environment::now_ns(), std::memory_order_relaxed);  // relaxed: a sign of life
  state.exchange->set_fence_required(!membarrier);
  state.tell();
  if (state.options.on_notice) state.counters.emplace(*state.exchange, state.options.on_notice);
  state.exchange->set_retry_clock(&shm::Environment::now_ns);
  state.service = std::make_unique<Service>(*state.directory, *state.exchange, state.bus, state.epoll.get(),
                                            state.options.on_notice);
  if (state.options.listen) {
    state.listener = control::Listener(state.directory->path("exchange.sock"), state.options.socket_mode,
                                       state.options.socket_group);
    event.data.u64 = tag(Source::listener, 0);
    state.watch(state.listener.fd(), event);
  }
}

Host::~Host() = default;

std::array<int, 3> Host::descriptors() const noexcept {
  return {state_->lock.get(), state_->epoll.get(), state_->stop_event.get()};
}

int Host::listener() const noexcept { return state_->listener.fd(); }

void Host::stop() noexcept {
  state_->stopping.store(1, std::memory_order_relaxed);  // relaxed: the event below wakes the loop, which looks again
  state_->wake();
}

void Host::State::wake() const noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_event.get(), &one, sizeof one);
}

control::Socket Host::connect() {
  auto [ours, theirs] = control::Socket::make_pair();
  {
    const std::lock_guard guard(state_->waiting_mutex);
    state_->waiting.push_back(std::move(ours));
  }
  state_->wake();
  return std::move(theirs);
}

void Host::call(std::function<void()> what) {
  {
    const std::lock_guard guard(state_->waiting_mutex);
    state_->calls.push_back(std::move(what));
  }
  state_->wake();
}

Exchange& Host::core() noexcept { return *state_->exchange; }

void Host::State::watch(int fd, epoll_event& event) const {
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    throw shm::system_error("exchange", "can't watch its descriptors", errno);
  }
}

void Host::State::take_waiting() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(stop_event.get(), &count, sizeof count);
  std::vector<std::function<void()>> asked;
  {
    const std::lock_guard guard(waiting_mutex);
    const std::uint64_t now_ns = shm::Environment::now_ns();
    for (control::Socket& socket : waiting) service->accept(std::move(socket), now_ns);
    waiting.clear();
    asked.swap(calls);
  }
  if (asked.empty()) return;
  const ShardHold held(exchange->peers());
  for (const std::function<void()>& what : asked) what();
}

// A crowd that comes and goes again and again gets a share of X's time, like a user who asks without end.
void Host::State::accept_some() {
  const std::uint64_t begin_ns = shm::Environment::now_ns();
  if (begin_ns - moved_ns < flow_ns && newcomers.overdrawn(begin_ns)) return;
  for (int i = 0; i < accepts_per_look; ++i) {
    auto socket = listener.accept();
    if (!socket) break;
    service->accept(std::move(*socket), begin_ns);
  }
  const std::uint64_t end_ns = shm::Environment::now_ns();
  newcomers.charge(end_ns - begin_ns, end_ns);
}

void Host::State::poll_control(int timeout_ms) {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll.get(), events, 64, timeout_ms);
  if (count <= 0) return;
  service->events_flow_until(moved_ns + flow_ns);
  const std::uint64_t begin_ns = shm::Environment::now_ns();
  bool late = false;  // what is left over is there at the next look, behind what has not had its turn
  for (int i = 0; i < count; ++i) {
    const std::uint64_t number = events[i].data.u64 & 0xffffffff;
    switch (static_cast<Source>(events[i].data.u64 >> 32)) {
      case Source::listener:
        if (!late) accept_some();
        break;
      case Source::stop:
        take_waiting();
        break;
      case Source::client:
        if (late) break;
        service->serve(static_cast<int>(number));
        late = shm::Environment::now_ns() - begin_ns > longest_look_ns;
        break;
      case Source::publisher:
        service->rang_publisher(number);
        break;
      case Source::queue:
        service->rang_queue(number >> 16, number & 0xffff);
        break;
    }
  }
}

void Host::State::tick(std::uint64_t now_ns) {
  exchange->tick(now_ns);
  if (shards) shards->tick(now_ns);
  service->events_flow_until(moved_ns + flow_ns);
  service->tick(now_ns);
  next_tick_ns = now_ns + tick_ns;
  tell();
  if (counters) counters->tick(now_ns);
}

// What nobody wants to know stays in the report, up to its limit.
void Host::State::tell() {
  if (!options.on_notice || exchange->report().empty()) return;
  for (const Notice& notice : exchange->take_report()) options.on_notice(notice);
}

void Host::run() {
  State& state = *state_;
  Exchange& exchange = *state.exchange;
  if (state.options.guard_bus_errors) shm::unblock_bus_errors();  // it need not be the thread that made the host
  shm::Backoff backoff(state.options.wait, shm::Side::exchange);
  if (exchange.shards().size() > 1) {
    ShardThreadOptions threads;
    threads.threads = state.options.shards;
    threads.wait = state.options.wait;
    threads.cpus = state.options.cpus;
    threads.guard_bus_errors = state.options.guard_bus_errors;
    threads.wake_host = [&state] { state.wake(); };
    state.shards = std::make_unique<ShardThreads>(exchange, std::move(threads));
  }
  std::uint64_t now_ns = shm::Environment::now_ns();
  std::uint32_t rounds = 0;
  bool flows = false;                                            // events have moved since the clock was looked at
  while (state.stopping.load(std::memory_order_relaxed) == 0) {  // relaxed: stop() also rings stop_event
    bool moved = exchange.step(now_ns);
    if (state.shards) [[unlikely]]
      moved = state.shards->step(now_ns, moved);
    // The clock and the sockets are looked at now and then: both cost more than a look at a ring.
    if ((++rounds & 63) == 0 || (!moved && backoff.slow())) {
      now_ns = shm::Environment::now_ns();
      if (moved || flows) state.moved_ns = now_ns;
      flows = false;
      if (now_ns >= state.next_tick_ns) state.tick(now_ns);
      if (now_ns >= state.next_control_ns) {
        state.poll_control(0);
        const std::uint64_t begin_ns = now_ns;
        now_ns = shm::Environment::now_ns();
        state.next_control_ns = now_ns + std::max(control_busy_ns, control_part * (now_ns - begin_ns));
      }
    }
    if (moved) {
      flows = true;
      backoff.found();
      continue;
    }
    if (backoff.wait() != shm::Backoff::Step::park) continue;
    bool idle = exchange.prepare_park();
    if (state.shards) idle = state.shards->prepare_park() && idle;
    if (idle) {
      const bool soon =
          exchange.needs_tick() || state.service->needs_tick() || (state.shards && state.shards->needs_tick());
      state.poll_control(static_cast<int>((soon ? tick_ns : idle_tick_ns) / 1'000'000));
      now_ns = shm::Environment::now_ns();
      if (now_ns >= state.next_tick_ns) state.tick(now_ns);
    }
    exchange.unpark();
    if (state.shards) state.shards->unpark();
    backoff.woke(now_ns);
  }
  // What is committed is routed before the exchange goes, and whose client has gone is seen; a clean stop leaves nothing
  // for recovery to do.
  if (state.shards) state.shards->stop();
  state.poll_control(0);
  now_ns = shm::Environment::now_ns();
  const auto step = [&state, &exchange, now_ns] {
    const bool moved = exchange.step(now_ns);
    return state.shards ? state.shards->step(now_ns, moved) : moved;
  };
  for (int i = 0; i < 1'000'000 && step(); ++i) {
  }
  state.tick(now_ns);
  if (state.counters) state.counters->finish(now_ns);
  exchange.close();
  state.listener.close();
  state.service->close_all();
}

}  // namespace ackring::exchange
