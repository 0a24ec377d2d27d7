// The terminal: what shmtool top needs of ncurses, and the only file that knows it.
//
// Thread rules: one object per process, one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/shmtool/top_lines.hpp"

namespace ackring::tools {

class TopScreen {
 public:
  /// Throws Failure (status_usage) where stdin or stdout is no terminal.
  static void need_terminal();
  /// Takes the terminal over until the destructor gives it back as it was. Throws Failure (status_usage) where there is
  /// none, or $TERM is none that can be written to at any place.
  TopScreen();
  ~TopScreen();
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;

  [[nodiscard]] TopSize size() const;
  [[nodiscard]] Charset charset() const noexcept { return charset_; }
  /// Sends what differs from what the terminal shows already.
  void show(const std::vector<TextLine>& lines);
  /// The next key that was pressed, or a change of the size (TopKey::other); nothing: none waits.
  [[nodiscard]] std::optional<TopPress> key();

 private:
  Charset charset_ = Charset::ascii;
  bool coloured_ = false;
};

}  // namespace ackring::tools
