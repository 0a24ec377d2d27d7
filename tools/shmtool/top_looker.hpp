// Looks at a bus from a thread of its own, so that keys are obeyed while an exchange takes its time to answer.
//
// Thread rules: one thread asks and takes; the looks are the looker's own thread's.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "lib/shm/descriptor.hpp"
#include "tools/shmtool/commands.hpp"
#include "tools/shmtool/top_model.hpp"

namespace ackring::tools {

class TopLooker {
 public:
  struct Question {
    bool look = false;       // at the whole bus
    std::string options_of;  // the subscription whose options are wanted; empty: of none
  };
  struct Answer {
    std::optional<TopLook> look;
    std::string error;  // why there is no look
    std::string options_of;
    nlohmann::json options;  // null: not known
  };

  /// Looks for the first time. Throws Failure, Error where there is no such bus.
  explicit TopLooker(const Globals& globals);
  ~TopLooker();
  TopLooker(const TopLooker&) = delete;
  TopLooker& operator=(const TopLooker&) = delete;

  [[nodiscard]] const TopLook& first() const noexcept { return first_; }

  /// Is an answer on its way? Then nothing may be asked.
  [[nodiscard]] bool busy() const noexcept { return busy_; }
  void ask(Question question);
  /// The answer, once it has come.
  [[nodiscard]] std::optional<Answer> take();
  /// Readable when there is one.
  [[nodiscard]] int fd() const noexcept { return event_.get(); }

 private:
  void work();
  [[nodiscard]] TopLook look();
  [[nodiscard]] Answer answer(const Question& question);
  [[nodiscard]] nlohmann::json options_of(const std::string& name) const;

  const Globals& globals_;
  TopLooks looks_;
  TopLook first_;
  std::string state_;  // of the exchange, as of the last look
  bool busy_ = false;  // of the asking thread
  shm::UniqueFd event_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::optional<Question> question_;
  std::optional<Answer> answer_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace ackring::tools
