#include "tools/shmtool/top_looker.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lib/control/subscription_codec.hpp"
#include "tools/common/program.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {

TopLooker::TopLooker(const Globals& globals) : globals_(globals), event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (event_.get() < 0) throw Failure(status_refused, std::string("eventfd: refused: ") + std::strerror(errno));
  first_ = look();
  thread_ = std::thread([this] { work(); });
}

TopLooker::~TopLooker() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  asked_.notify_one();
  thread_.join();
}

void TopLooker::ask(Question question) {
  busy_ = true;
  {
    const std::lock_guard lock(mutex_);
    question_ = std::move(question);
  }
  asked_.notify_one();
}

std::optional<TopLooker::Answer> TopLooker::take() {
  const std::lock_guard lock(mutex_);
  if (!answer_) return std::nullopt;
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(event_.get(), &count, sizeof(count));
  busy_ = false;
  return std::exchange(answer_, std::nullopt);
}

void TopLooker::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    asked_.wait(lock, [this] { return ended_ || question_; });
    if (ended_) return;
    const Question question = *std::exchange(question_, std::nullopt);
    lock.unlock();
    Answer found = answer(question);
    lock.lock();
    answer_ = std::move(found);
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto put = ::write(event_.get(), &one, sizeof(one));  // a counter at 0 is never full
  }
}

TopLook TopLooker::look() {
  nlohmann::json document = stat_document(globals_);
  TopLook look = looks_.add(std::move(document), monotonic_ns(), realtime_ns());
  state_ = look.state;
  return look;
}

TopLooker::Answer TopLooker::answer(const Question& question) {
  Answer answer;
  answer.options_of = question.options_of;
  try {
    if (question.look) answer.look = look();
  } catch (const std::exception& error) {
    answer.error = error.what();
    return answer;
  }
  try {
    if (!question.options_of.empty()) answer.options = options_of(question.options_of);
  } catch (const std::exception&) {
    answer.options = nullptr;  // the exchange or the subscription went away since: the next look says so
  }
  return answer;
}

nlohmann::json TopLooker::options_of(const std::string& name) const {
  if (state_ == "running") {
    return control::options_to_json(open_bus(globals_, std::chrono::seconds(2)).subscription(name));
  }
  const shm::FileDirectory directory(globals_.directory + "/" + globals_.bus, false);
  for (const std::string& file : directory.list("sub.")) {
    if (!file.ends_with(".json")) continue;
    const auto definition = nlohmann::json::parse(directory.read_file(file));
    if (definition.at("name") == name) return definition.at("options");
  }
  return nullptr;
}

}  // namespace ackring::tools
