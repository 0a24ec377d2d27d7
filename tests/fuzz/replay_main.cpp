// A fuzzer without libFuzzer: its seed inputs, and a number of random ones made from them, in an order that only the seed
// decides. A failure names the input; --only replays it.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.hpp"

namespace {

char current[512];  // what is being done, for the handler of a signal

void say_where(int signal) {
  (void)!::write(STDERR_FILENO, current, std::strlen(current));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

std::string mutated(std::mt19937_64& random, const std::vector<std::string>& seeds) {
  std::string input = seeds.empty() ? std::string() : seeds[random() % seeds.size()];
  if (seeds.empty() || random() % 4 == 0) {  // or nothing that anybody thought of
    input.resize(random() % 256);
    for (char& byte : input) byte = static_cast<char>(random());
  }
  for (std::size_t edits = 1 + random() % 8; edits > 0; --edits) {
    const std::size_t at = input.empty() ? 0 : random() % input.size();
    switch (random() % 5) {
      case 0:
        if (!input.empty()) input[at] = static_cast<char>(random());
        break;
      case 1:
        input.erase(at, random() % 8);
        break;
      case 2:
        for (std::size_t i = random() % 16; i > 0; --i)
          input.insert(input.begin() + static_cast<long>(at), static_cast<char>(random()));
        break;
      case 3:
        if (!seeds.empty()) {
          const std::string& other = seeds[random() % seeds.size()];
          input.insert(at, other.substr(other.empty() ? 0 : random() % other.size(), random() % 64));
        }
        break;
      default:
        if (!input.empty()) input[at] = static_cast<char>(input[at] ^ (1 << random() % 8));
        break;
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t runs = 0;
  std::uint64_t seed = 1;
  std::uint64_t only = 0;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--runs" && i + 1 < argc) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--only" && i + 1 < argc) {
      only = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) files.push_back(entry.path());
    } else {
      files.push_back(argument);
    }
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM}) std::signal(signal, say_where);
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds;
  for (const std::string& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "%s: can't read it\n", file.c_str());
      return 2;
    }
    seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    if (only != 0) continue;
    std::snprintf(current, sizeof current, "failed: replay with: %s %s\n", argv[0], file.c_str());
    ::alarm(60);  // an input that hangs is a failure as well
    run(seeds.back());
  }
  for (std::uint64_t number = 1; number <= std::max(runs, only); ++number) {
    std::mt19937_64 random(seed * 1'000'003 + number);
    const std::string input = mutated(random, seeds);
    if (only != 0 && number != only) continue;
    std::snprintf(current, sizeof current, "failed: replay with: %s --seed %llu --only %llu %s\n", argv[0],
                  static_cast<unsigned long long>(seed), static_cast<unsigned long long>(number),
                  argc > 1 ? argv[argc - 1] : "");
    ::alarm(60);
    run(input);
  }
  std::printf("%zu seed inputs, %llu random ones of seed %llu\n", files.size(), static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(seed));
  return files.empty() && runs == 0 && only == 0 ? 2 : 0;
}
