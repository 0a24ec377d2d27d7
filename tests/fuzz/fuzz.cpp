// doctest's assertions outside of test cases: one that fails says what, and ends the program.
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/fuzz/fuzz.hpp"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

void end_program(const doctest::AssertData& failure) {
  if (!failure.m_failed) return;
  std::fprintf(stderr, "%s:%d: %s( %s ) is not so: %s\n", failure.m_file, failure.m_line,
               doctest::assertString(failure.m_at), failure.m_expr,
               failure.m_threw ? failure.m_exception.c_str() : failure.m_decomp.c_str());
  for (int i = 0; i < doctest::IReporter::get_num_active_contexts(); ++i) {
    std::ostringstream text;
    doctest::IReporter::get_active_contexts()[i]->stringify(&text);
    std::fprintf(stderr, "  with %s\n", text.str().c_str());
  }
  std::abort();
}

struct AssertionsOutsideOfTests {
  AssertionsOutsideOfTests() {
    context.setAsDefaultForAssertsOutOfTestCases();
    context.setAssertHandler(end_program);
  }
  doctest::Context context;
};
const AssertionsOutsideOfTests assertions;

}  // namespace

/// Called by libFuzzer before it reads its options: an input that takes long, or much memory at once, is a finding.
extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  static std::vector<char*> all;
  static std::string timeout = "-timeout=25";
  static std::string memory = "-malloc_limit_mb=600";
  static std::string length = "-len_control=0";  // inputs are scripts: a long one is as good as a short one
  all.assign(*arguments, *arguments + *count);
  all.insert(all.begin() + std::min(*count, 1),
             {timeout.data(), memory.data(), length.data()});  // before the user's, who may differ
  *count = static_cast<int>(all.size());
  all.push_back(nullptr);
  *arguments = all.data();
  return 0;
}
