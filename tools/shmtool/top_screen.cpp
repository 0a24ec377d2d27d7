#include "tools/shmtool/top_screen.hpp"

#include <langinfo.h>
#include <unistd.h>

#include <climits>
#include <clocale>
#include <cstdlib>
#include <cwchar>
#include <string_view>
#include <utility>

// As wide characters have it (get_wch), and without macros that are called like functions of others (move, erase, timeout).
#define NCURSES_WIDECHAR 1
#define NCURSES_NOMACROS 1
#include <curses.h>

#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

constexpr const char* advice = ": use shmtool stat --watch, which prints plain lines";

enum Pair : short { green = 1, yellow, red };

attr_t attributes(Style style, bool coloured) {
  const auto colour = [coloured](Pair pair, attr_t otherwise) {
    return coloured ? static_cast<attr_t>(COLOR_PAIR(pair)) : otherwise;
  };
  switch (style) {
    case Style::strong:
      return A_BOLD;
    case Style::faint:
      return A_DIM;
    case Style::title:
      return A_REVERSE;
    case Style::sorted:
    case Style::selected:
      return A_REVERSE | A_BOLD;
    case Style::good:
      return colour(green, A_NORMAL);
    case Style::warning:
      return colour(yellow, A_BOLD);
    case Style::bad:
      return colour(red, A_NORMAL) | A_BOLD;
    case Style::plain:
      break;
  }
  return A_NORMAL;
}

TopKey key_of(wint_t code) {
  switch (code) {
    case KEY_UP:
      return TopKey::up;
    case KEY_DOWN:
      return TopKey::down;
    case KEY_LEFT:
      return TopKey::left;
    case KEY_PPAGE:
      return TopKey::page_up;
    case KEY_NPAGE:
      return TopKey::page_down;
    case KEY_HOME:
      return TopKey::home;
    case KEY_END:
      return TopKey::end;
    case KEY_ENTER:
      return TopKey::enter;
    case KEY_BACKSPACE:
      return TopKey::backspace;
    default:
      return TopKey::other;
  }
}

TopPress press_of(wint_t character) {
  switch (character) {
    case L'\r':
    case L'\n':
      return {TopKey::enter, ""};
    case L'\t':
      return {TopKey::tab, ""};
    case 0x1b:
      return {TopKey::escape, ""};
    case 0x08:
    case 0x7f:
      return {TopKey::backspace, ""};
    case 0x15:  // ^U
      return {TopKey::clear_line, ""};
    default:
      break;
  }
  char bytes[MB_LEN_MAX];
  std::mbstate_t state{};
  const std::size_t size = std::wcrtomb(bytes, static_cast<wchar_t>(character), &state);
  if (character < 0x20 || size == static_cast<std::size_t>(-1)) return {TopKey::other, ""};
  return {TopKey::text, std::string(bytes, size)};
}

}  // namespace

void TopScreen::need_terminal() {
  for (const auto& [fd, name] : {std::pair{STDOUT_FILENO, "stdout"}, std::pair{STDIN_FILENO, "stdin"}}) {
    if (::isatty(fd) == 0) throw Failure(status_usage, std::string(name) + ": it is no terminal" + advice);
  }
}

TopScreen::TopScreen() {
  need_terminal();
  std::setlocale(LC_CTYPE, "");
  charset_ = std::string_view(::nl_langinfo(CODESET)) == "UTF-8" ? Charset::utf8 : Charset::ascii;
  const char* term = std::getenv("TERM");
  ::set_escdelay(25);  // no key that begins with Esc takes as long, and Esc itself shall not wait for a second
  SCREEN* screen = ::newterm(nullptr, stdout, stdin);
  // "dumb" is a known terminal, but one where each change would scroll.
  if (screen == nullptr || ::tigetstr(const_cast<char*>("cup")) == nullptr) {
    if (screen != nullptr) ::endwin();
    throw Failure(status_usage, std::string("TERM '") + (term == nullptr ? "" : term) +
                                    "': no terminal is known by this name whose cursor can be moved" + advice);
  }
  ::cbreak();
  ::noecho();
  ::nonl();
  ::nodelay(stdscr, TRUE);
  ::keypad(stdscr, TRUE);
  ::leaveok(stdscr, TRUE);
  ::curs_set(0);
  const char* no_colour = std::getenv("NO_COLOR");
  coloured_ = (no_colour == nullptr || *no_colour == '\0') && ::has_colors();
  if (coloured_) {
    ::start_color();
    const short background = ::use_default_colors() == OK ? -1 : COLOR_BLACK;
    ::init_pair(green, COLOR_GREEN, background);
    ::init_pair(yellow, COLOR_YELLOW, background);
    ::init_pair(red, COLOR_RED, background);
  }
}

TopScreen::~TopScreen() { ::endwin(); }

TopSize TopScreen::size() const {
  return {static_cast<std::size_t>(getmaxy(stdscr)), static_cast<std::size_t>(getmaxx(stdscr))};
}

void TopScreen::show(const std::vector<TextLine>& lines) {
  ::werase(stdscr);
  for (std::size_t row = 0; row < lines.size(); ++row) {
    ::wmove(stdscr, static_cast<int>(row), 0);
    for (const Span& span : lines[row]) {
      ::wattrset(stdscr, static_cast<int>(attributes(span.style, coloured_)));
      ::waddnstr(stdscr, span.text.data(), static_cast<int>(span.text.size()));  // fails behind the last corner: drawn
    }
  }
  ::wattrset(stdscr, A_NORMAL);
  ::wrefresh(stdscr);
}

std::optional<TopPress> TopScreen::key() {
  wint_t code = 0;
  const int result = ::wget_wch(stdscr, &code);
  if (result == ERR) return std::nullopt;
  if (result == KEY_CODE_YES) {
    if (code == KEY_RESIZE) ::clearok(stdscr, TRUE);  // what a terminal makes of a smaller window, nobody knows
    return TopPress{key_of(code), ""};
  }
  return press_of(code);
}

}  // namespace ackring::tools
