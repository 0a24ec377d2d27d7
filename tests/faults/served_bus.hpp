// An exchange with its service on a directory of files, and one client that speaks the protocol by hand, all on the calling
// thread. Only what the exchange does goes by the plan of failing calls; a request that is refused is made again, as its
// client would, once what was missing is there.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "ackring/error.hpp"
#include "lib/exchange/doctor.hpp"
#include "lib/exchange/service.hpp"
#include "tests/exchange/core_world.hpp"
#include "tests/faults/failing_calls.hpp"

namespace ackring::test {

struct BusFolder {
  std::string path = "/dev/shm/ackring-faults-XXXXXX";
  BusFolder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~BusFolder() { std::filesystem::remove_all(path); }
  BusFolder(const BusFolder&) = delete;
  BusFolder& operator=(const BusFolder&) = delete;
  /// The files by name, numbers left out: those differ by how often something was tried.
  [[nodiscard]] std::multiset<std::string> kinds() const {
    std::multiset<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      found.insert(std::regex_replace(entry.path().filename().string(), std::regex("[0-9]+"), "N"));
    }
    return found;
  }
};

class ServedBus {
 public:
  ServedBus(const BusFolder& folder, CallPlan& plan) : plan_(plan), directory_(folder.path, false) { start(); }

  control::Json ask(control::Json request, std::vector<shm::UniqueFd>* descriptors = nullptr) {
    for (int tries = 0; tries < 4; ++tries) {
      control::Json reply = ask_once(request, descriptors);
      if (reply.value("ok", false)) return reply;
      INFO(request.dump(), " → ", reply.dump());
      // Only a failure that was injected is an excuse, and its error has to be told.
      CHECK(take_failure());
      CHECK(!reply.value("object", "").empty());
      CHECK(!reply.value("why", "").empty());
      // A log that can't grow says only that it has no room.
      if (request["op"] != "dead_requeue") CHECK(reply.value("errno", 0) == plan_.error);
    }
    FAIL("refused again and again: ", request.dump());
    return {};
  }

  /// The answer to a request that is to be refused.
  control::Json refused(const control::Json& request) {
    control::Json reply = ask_once(request, nullptr);
    CHECK(!reply.value("ok", true));
    return reply;
  }

  void step() {
    const Armed armed(plan_);
    while (x_->step(now_ns_)) {
    }
  }
  void tick() {
    // Never behind the clock by which requests are dated.
    now_ns_ = std::max(now_ns_ + 6'000'000, shm::Environment::now_ns());
    {
      const Armed armed(plan_);
      x_->tick(now_ns_);
    }
    step();
  }
  /// The exchange is killed and another one starts, as often as that takes.
  void restart() {
    service_.reset();
    x_.reset();
    socket_.close();
    start();
    connect(client_);
  }

  CorePublisher publisher(const std::string& name) {
    const control::Json reply = ask({{"op", "publisher"}, {"name", name}, {"ring_bytes", 1u << 19}});
    exchange::PublisherGrant grant;
    grant.slot = reply["slot"];
    grant.incarnation = reply["incarnation"];
    grant.next_sequence = reply["next_sequence"];
    grant.ring_file = exchange::Exchange::ingress_name(grant.slot, grant.incarnation);
    grant.cursor_file = exchange::Exchange::cursor_name(grant.slot, grant.incarnation);
    return {directory_, grant};
  }
  CoreMember member(const control::Json& request) {
    const control::Json reply = ask(request);
    exchange::MemberGrant grant;
    grant.queue = x_->find_queue(reply["subscription"].get<std::uint64_t>());
    grant.queue->each_lane([&](exchange::Lane& lane) {
      if (lane.ack_incarnation == reply["ack_page"]) grant.lane = &lane;
    });
    grant.entry = reply["entry"];
    grant.position = reply["position"];
    grant.ring_file = exchange::Exchange::ring_name(grant.queue->id, grant.lane->ring_incarnation);
    grant.ack_file = exchange::Exchange::ack_name(grant.queue->id, grant.lane->ack_incarnation);
    return {directory_, grant};
  }
  exchange::Exchange& x() { return *x_; }
  /// The client goes; the exchange sees that its lock is free.
  void leave() {
    lock_.reset();
    socket_.close();
    const Armed armed(plan_);
    for (int look = 0; look < 2; ++look) service_->serve(served_);
    for (int look = 0; look < 2; ++look) service_->tick(shm::Environment::now_ns());
  }
  /// The exchange is killed, the doctor finds nothing that is wrong, and another one starts.
  void succeed() {
    service_.reset();
    x_.reset();
    exchange::DoctorOptions options;
    options.locked_by_caller = true;
    for (const exchange::Finding& finding : exchange::examine(directory_, options).findings) {
      INFO(finding.file, ": ", finding.text);
      CHECK(finding.gravity != exchange::Gravity::violation);
    }
    start();
    check_found_sound(*x_);
    tick();  // a publisher's ring that is empty goes as it always does
  }

 private:
  void start() {
    while (true) {
      try {
        const Armed armed(plan_);
        x_ = std::make_unique<exchange::Exchange>(directory_);
        epoll_ = shm::UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
        if (!epoll_) throw Error(ErrorCode::no_space, "epoll", "refused", {}, errno);
        service_ = std::make_unique<exchange::Service>(directory_, *x_, "faults", epoll_.get());
        break;
      } catch (const Error& error) {
        service_.reset();
        x_.reset();
        INFO(error.what());
        CHECK(take_failure());
        CHECK(error.system_errno() == plan_.error);
        CHECK(!error.object().empty());
      }
    }
    if (client_ == 0) connect(0);
  }

  void connect(std::uint64_t client) {
    while (true) {
      auto [ours, theirs] = control::Socket::make_pair();
      socket_ = std::move(theirs);
      served_ = ours.fd();
      {
        const Armed armed(plan_);
        service_->accept(std::move(ours), shm::Environment::now_ns());
      }
      if (!socket_.hung_up()) break;
      CHECK(take_failure());
    }
    control::Json hello = {{"op", "hello"}, {"layout", shm::layout_version}, {"membarrier", true}};
    if (client != 0) hello["client"] = client;
    std::vector<shm::UniqueFd> descriptors;
    client_ = ask(hello, &descriptors)["client"];
    if (descriptors.size() > 2) lock_ = std::move(descriptors[2]);
  }

  control::Json ask_once(control::Json request, std::vector<shm::UniqueFd>* descriptors) {
    request["id"] = 1;
    REQUIRE(socket_.send(request) == control::SendStatus::sent);
    control::Message message;
    std::string reason;
    auto status = control::ReceiveStatus::nothing_yet;
    // Its socket stays readable, or has room, where the exchange could not read or answer.
    for (int look = 0; look < 3 && status == control::ReceiveStatus::nothing_yet; ++look) {
      {
        const Armed armed(plan_);
        service_->serve(served_);
      }
      status = socket_.receive(message, reason);
    }
    INFO(request.dump(), ": ", reason);
    REQUIRE(status == control::ReceiveStatus::message);
    if (descriptors != nullptr) *descriptors = std::move(message.descriptors);
    return message.body;
  }

  bool take_failure() {
    const bool failed = plan_.failed.exchange(false, std::memory_order_relaxed);
    if (plan_.lasting) plan_.fail_at = ~std::uint64_t{0};
    return failed;
  }

  CallPlan& plan_;
  shm::FileDirectory directory_;
  shm::UniqueFd epoll_;
  std::unique_ptr<exchange::Exchange> x_;
  std::unique_ptr<exchange::Service> service_;
  control::Socket socket_;
  shm::UniqueFd lock_;
  int served_ = -1;
  std::uint64_t client_ = 0;
  std::uint64_t now_ns_ = shm::Environment::now_ns();
};

}  // namespace ackring::test
