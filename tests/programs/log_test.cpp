#include "tools/exchange/log.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/common/program.hpp"

using ackring::exchange::Notice;
using ackring::tools::format_notice;
using ackring::tools::Log;
using ackring::tools::LogFormat;
using ackring::tools::LogSettings;

namespace {

const Notice joined{Notice::Level::info,
                    "client.joined",
                    "client 1 (a\nb) joined",
                    {{"client", std::uint64_t{1}}, {"name", std::string("a\nb")}}};

// A file's own name, and nobody else's.
struct File {
  std::string path = std::filesystem::temp_directory_path() / ("ackring-log-" + std::to_string(::getpid()));
  File() { std::filesystem::remove(path); }
  ~File() { std::filesystem::remove(path); }
  [[nodiscard]] std::string content() const {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  [[nodiscard]] static std::size_t lines(const std::string& text) {
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }
};

}  // namespace

TEST_CASE("a line of text: time, level, event; for the journal a priority instead; never two lines") {
  CHECK(format_notice(joined, LogFormat::text, false, 1'700'000'000'123'000'000) ==
        "2023-11-14T22:13:20.123Z info  client.joined: client 1 (a b) joined");
  CHECK(format_notice(joined, LogFormat::text, true, 0) == "<6>client.joined: client 1 (a b) joined");
  Notice notice = joined;
  notice.level = Notice::Level::warning;
  CHECK(format_notice(notice, LogFormat::text, true, 0).starts_with("<4>"));
  notice.level = Notice::Level::error;
  CHECK(format_notice(notice, LogFormat::text, true, 0).starts_with("<3>"));
  notice.text = std::string(100'000, 'x');
  CHECK(format_notice(notice, LogFormat::text, false, 0).size() < 4000);
}

TEST_CASE("a line of JSON is one whatever names there are, and fits a pipe") {
  const auto line = nlohmann::json::parse(format_notice(joined, LogFormat::json, false, 1'700'000'000'123'000'000));
  CHECK(line == nlohmann::json{{"time", "2023-11-14T22:13:20.123Z"},
                               {"level", "info"},
                               {"event", "client.joined"},
                               {"text", "client 1 (a\nb) joined"},
                               {"fields", {{"client", 1}, {"name", "a\nb"}}}});
  Notice notice = joined;
  notice.text = "\xff\xfe" + std::string(100'000, '\1');
  notice.fields = {{"name", notice.text}, {"other", notice.text}};
  const std::string text = format_notice(notice, LogFormat::json, false, 0);
  CHECK(text.size() <= 4000);
  CHECK(nlohmann::json::parse(text)["event"] == "client.joined");
}

TEST_CASE("what is below the level is not logged; a file is appended to, and opened anew") {
  const File file;
  std::ofstream(file.path) << "before\n";
  {
    Log log(LogSettings{spdlog::level::warn, LogFormat::text, file.path});
    log.tell(joined);
    log.tell({Notice::Level::error, "b", "told", {}});
  }
  CHECK(file.content().starts_with("before\n"));
  CHECK(file.content().ends_with("error b: told\n"));
  CHECK(File::lines(file.content()) == 2);
  Log log(LogSettings{spdlog::level::info, LogFormat::text, file.path});
  std::filesystem::remove(file.path);  // as logrotate does
  log.change(LogSettings{spdlog::level::info, LogFormat::json, file.path});
  log.tell(joined);
  for (int i = 0; file.content().empty() && i < 10'000; ++i) ::usleep(1000);
  CHECK(nlohmann::json::parse(file.content())["event"] == "client.joined");
  CHECK_THROWS_AS(log.change(LogSettings{spdlog::level::info, LogFormat::text, file.path + "/no"}),
                  ackring::tools::Failure);
  CHECK_THROWS_AS(Log(LogSettings{spdlog::level::info, LogFormat::text, "/"}), ackring::tools::Failure);
}

TEST_CASE("a flood of one kind is cut off, and counted; other kinds are not") {
  const File file;
  {
    Log log(LogSettings{spdlog::level::info, LogFormat::text, file.path});
    for (int i = 0; i < 500; ++i) log.tell(joined);
    log.tell({Notice::Level::info, "other", "told", {}});
  }
  const std::string content = file.content();
  CHECK(File::lines(content) == Log::lines_per_quiet + 2);
  CHECK(content.find("info  other: told") != std::string::npos);
  CHECK(content.find("log.left_out: 300 more lines of client.joined") != std::string::npos);
}

TEST_CASE("who does not read a pipe holds up nobody; later he is told how many lines he has missed") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
  const std::string path = "/proc/self/fd/" + std::to_string(ends[1]);
  std::string read;
  std::vector<std::string> names(3000);
  const auto drain = [&] {
    std::array<char, 65536> part{};
    const ssize_t got = ::read(ends[0], part.data(), part.size());
    if (got > 0) read.append(part.data(), static_cast<std::size_t>(got));
  };
  {
    Log log(LogSettings{spdlog::level::info, LogFormat::text, path});
    // Of as many kinds, so that none is cut off; more than the pipe and the queue before it hold.
    for (std::size_t i = 0; i < names.size(); ++i) {
      names[i] = "kind" + std::to_string(i);
      log.tell({Notice::Level::info, names[i].c_str(), std::string(1000, 'x'), {}});
    }
    for (int i = 0; read.find("info  last: told") == std::string::npos && i < 10'000; ++i) {
      drain();
      if (i % 100 == 0) log.tell({Notice::Level::info, "last", "told", {}});
      ::usleep(1000);
    }
  }
  drain();
  CHECK(read.find("lines were dropped: nobody read them") != std::string::npos);
  CHECK(read.find("info  kind") != std::string::npos);
  CHECK(read.find("info  last: told") != std::string::npos);
  ::close(ends[0]);
  ::close(ends[1]);
}
