// The rates of shmtool stat --watch.
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "tools/shmtool/stat_watch.hpp"

namespace ackring::tools {
namespace {

nlohmann::json look(const std::string& name, std::uint64_t matched, std::uint64_t nacked) {
  return {
      {"subscriptions", {{{"name", name}, {"matched", matched}, {"delivered", 2}, {"acked", 1}, {"nacked", nacked}}}}};
}

TEST_CASE("rates are changes per second") {
  StatRates rates;
  nlohmann::json document = look("s", 100, 7);
  rates.add_to(document, 5'000'000'000);
  CHECK(document["subscriptions"][0]["per_s"]["matched"].is_null());

  document = look("s", 150, 7);
  rates.add_to(document, 7'000'000'000);
  CHECK(document["subscriptions"][0]["per_s"]["matched"] == 25.0);
  CHECK(document["subscriptions"][0]["per_s"]["delivered"] == 0.0);
  CHECK(document["subscriptions"][0]["per_s"]["nacked"] == 0.0);

  document = look("s", 10, 9);  // removed, and made again
  rates.add_to(document, 7'500'000'000);
  CHECK(document["subscriptions"][0]["per_s"]["matched"].is_null());
  CHECK(document["subscriptions"][0]["per_s"]["nacked"] == 4.0);

  document = look("t", 10, 9);
  rates.add_to(document, 8'000'000'000);
  CHECK(document["subscriptions"][0]["per_s"]["matched"].is_null());
  document = look("s", 20, 9);  // it was not there the last time
  rates.add_to(document, 9'000'000'000);
  CHECK(document["subscriptions"][0]["per_s"]["matched"].is_null());
}

}  // namespace
}  // namespace ackring::tools
