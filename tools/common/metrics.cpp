#include "tools/common/metrics.hpp"

#include <initializer_list>
#include <limits>
#include <sstream>
#include <string_view>
#include <utility>

#include <prometheus/text_serializer.h>

namespace ackring::tools {
namespace {

using Json = nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr double ns_per_s = 1e9;

double number(const Json& row, const char* key) {
  const auto found = row.find(key);
  return found == row.end() || !found->is_number() ? 0.0 : found->get<double>();
}

MetricFamily family(const char* name, const char* help, MetricType type) {
  MetricFamily made;
  made.name = name;
  made.help = help;
  made.type = type;
  return made;
}

void add(MetricFamily& family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(std::move(metric));
}

// One family with a value per row.
struct Plain {
  const char* name;
  const char* help;
  MetricType type;
  const char* field;
};

constexpr Plain of_publishers[] = {
    {"ackring_published_events_total", "Events committed by the publisher.", MetricType::Counter, "committed"},
    {"ackring_routed_events_total", "Events that matched a subscription.", MetricType::Counter, "routed"},
    {"ackring_unroutable_events_total", "Events that matched no subscription.", MetricType::Counter, "unroutable"},
    {"ackring_duplicate_events_total", "Events ignored, their sequence had been seen.", MetricType::Counter,
     "duplicates"},
    {"ackring_denied_events_total", "Events of topics that access rules keep from their publisher.",
     MetricType::Counter, "denied"},
    {"ackring_discarded_events_total", "Records that were no valid events.", MetricType::Counter, "discarded"},
    {"ackring_back_pressured_publishes_total", "Publishes that met a full ring.", MetricType::Counter,
     "back_pressured"},
    {"ackring_ingress_events", "Events in the publisher's ring, not routed yet.", MetricType::Gauge, "in_ring"},
};

constexpr Plain of_subscriptions[] = {
    {"ackring_matched_events_total", "Events that matched the subscription.", MetricType::Counter, "matched"},
    {"ackring_deliveries_total", "Deliveries taken by members, redeliveries included.", MetricType::Counter,
     "delivered"},
    {"ackring_acks_total", "Events acked; at most once: taken.", MetricType::Counter, "acked"},
    {"ackring_redeliveries_total", "Deliveries made again.", MetricType::Counter, "redelivered"},
    {"ackring_requeues_total", "Dead letters put back into the queue.", MetricType::Counter, "requeued"},
    {"ackring_late_acks_total", "Acks that came after the delivery had timed out.", MetricType::Counter, "late_acks"},
    {"ackring_expired_events_total", "Events that expired and became no dead letter.", MetricType::Counter, "expired"},
    {"ackring_purged_events_total", "Events purged by an operator.", MetricType::Counter, "purged"},
    {"ackring_dlq_removed_events_total", "Dead letters purged by an operator.", MetricType::Counter, "dlq_removed"},
    {"ackring_members", "Members that are there.", MetricType::Gauge, "members"},
    {"ackring_queued_events", "Events not taken yet.", MetricType::Gauge, "queued"},
    {"ackring_in_flight_deliveries", "Deliveries taken, without a verdict.", MetricType::Gauge, "in_flight"},
    {"ackring_retry_events", "Events that wait for another attempt.", MetricType::Gauge, "retry_waiting"},
    {"ackring_dlq_events", "Dead letters.", MetricType::Gauge, "dlq_size"},
    {"ackring_lag_events", "Events from the first unsettled one to the last one matched.", MetricType::Gauge, "lag"},
};

ClientMetric::Label named(const char* label, const Json& row) { return {label, row.at("name").get<std::string>()}; }

// The exchange names those without a name by their place: @0, @1, …
bool is_anonymous(const Json& row) {
  const auto& name = row.at("name").get_ref<const std::string&>();
  return name.empty() || (name.size() > 1 && name[0] == '@' && name[1] >= '0' && name[1] <= '9');
}

bool is_ephemeral(const Json& row) { return row.value("ephemeral", false); }

// Which rows have a label of their own.
template <class Each>
void each_subscription(const Json& document, const Each& each) {
  for (const Json& row : document.at("subscriptions")) {
    if (!is_ephemeral(row)) each(row, named("subscription", row));
  }
}

template <std::size_t Size, class Rows>
void add_plain(std::vector<MetricFamily>& families, const Plain (&plain)[Size], const Rows& rows) {
  for (const Plain& one : plain) {
    MetricFamily made = family(one.name, one.help, one.type);
    rows([&](const Json& row, const ClientMetric::Label& label) { add(made, {label}, number(row, one.field)); });
    families.push_back(std::move(made));
  }
}

// Buckets of a factor of four each: a series per bucket and subscription is what a Prometheus pays for.
ClientMetric histogram(const Json& part, const ClientMetric::Label& label) {
  ClientMetric metric;
  metric.label = {label};
  bool take = true;
  for (const Json& bucket : part.at("buckets")) {
    if (std::exchange(take, !take)) {
      metric.histogram.bucket.push_back({bucket.at(1).get<std::uint64_t>(), bucket.at(0).get<double>() / ns_per_s});
    }
  }
  const auto count = part.at("count").get<std::uint64_t>();
  metric.histogram.bucket.push_back({count, std::numeric_limits<double>::infinity()});
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = part.at("sum_ns").get<double>() / ns_per_s;
  return metric;
}

void add_exchange(std::vector<MetricFamily>& families, const Json& document) {
  const Json& exchange = document.at("exchange");
  const auto gauge = [&](const char* name, const char* help, double value) {
    families.push_back(family(name, help, MetricType::Gauge));
    add(families.back(), {}, value);
  };
  gauge("ackring_up", "1: the exchange serves the bus.", exchange.at("state") == "running" ? 1 : 0);
  gauge("ackring_exchange_uptime_seconds", "Time since the exchange started.", number(exchange, "uptime_s"));
  gauge("ackring_exchange_shards", "Threads that move events.", number(exchange, "shards"));
  gauge("ackring_publishers", "Publishers that the exchange knows.",
        static_cast<double>(document.at("publishers").size()));
  families.push_back(
      family("ackring_exchange_starts_total", "Starts of an exchange of this bus.", MetricType::Counter));
  add(families.back(), {}, number(exchange, "generation"));

  double ephemeral = 0;
  double queued = 0;
  for (const Json& row : document.at("subscriptions")) {
    if (!is_ephemeral(row)) continue;
    ephemeral += 1;
    queued += number(row, "queued");
  }
  gauge("ackring_subscriptions", "Named subscriptions.",
        static_cast<double>(document.at("subscriptions").size()) - ephemeral);
  gauge("ackring_ephemeral_subscriptions", "Subscriptions that go with their member.", ephemeral);
  gauge("ackring_ephemeral_queued_events", "Events that these have not taken yet.", queued);
  double anonymous = 0;
  for (const Json& row : document.at("publishers")) {
    if (is_anonymous(row)) anonymous += number(row, "committed");
  }
  gauge("ackring_anonymous_published_events", "Events committed by the anonymous publishers that are there.",
        anonymous);
}

void add_reasons(std::vector<MetricFamily>& families, const Json& document) {
  MetricFamily nacks =
      family("ackring_nacks_total", "Attempts that ended without an ack, by how.", MetricType::Counter);
  MetricFamily dead =
      family("ackring_dead_letters_total", "Events that became dead letters, by why.", MetricType::Counter);
  MetricFamily drops = family("ackring_dropped_events_total", "Events dropped by the subscription's policy, by why.",
                              MetricType::Counter);
  MetricFamily bytes = family("ackring_queue_bytes", "Bytes of records in files of the queue.", MetricType::Gauge);
  each_subscription(document, [&](const Json& row, const ClientMetric::Label& label) {
    for (const char* how : {"nacked", "rejected", "timed_out"}) add(nacks, {label, {"reason", how}}, number(row, how));
    for (const char* why : {"max_deliveries", "rejected", "expired", "overflow", "removed"}) {
      add(dead, {label, {"reason", why}}, number(row.at("dead_lettered_by"), why));
    }
    for (const char* why : {"drop-newest", "drop-oldest", "too-large"}) {
      add(drops, {label, {"reason", why}}, number(row.at("dropped"), why));
    }
    for (const char* queue : {"backlog", "retry", "dlq"}) {
      add(bytes, {label, {"queue", queue}}, number(row, (std::string(queue) + "_bytes").c_str()));
    }
  });
  for (MetricFamily* made : {&nacks, &dead, &drops, &bytes}) families.push_back(std::move(*made));
}

void add_states(std::vector<MetricFamily>& families, const Json& document, std::uint64_t now_ns) {
  MetricFamily age = family("ackring_oldest_unsettled_age_seconds",
                            "Time since the oldest unsettled event was published.", MetricType::Gauge);
  MetricFamily paused = family("ackring_paused", "1: nothing is delivered until it is resumed.", MetricType::Gauge);
  MetricFamily breaker =
      family("ackring_breaker_state", "1 for the state of the circuit breaker of its handlers.", MetricType::Gauge);
  MetricFamily opened = family("ackring_breaker_openings",
                               "How often breakers of the members that are there have opened.", MetricType::Gauge);
  MetricFamily take =
      family("ackring_publish_to_take_seconds", "Time from publish to take, of a sample.", MetricType::Histogram);
  MetricFamily ack =
      family("ackring_publish_to_ack_seconds", "Time from publish to ack, of a sample.", MetricType::Histogram);
  each_subscription(document, [&](const Json& row, const ClientMetric::Label& label) {
    const auto oldest_ns = row.at("oldest_monotonic_ns").get<std::uint64_t>();
    const bool any = oldest_ns != 0 && oldest_ns < now_ns;
    add(age, {label}, any ? static_cast<double>(now_ns - oldest_ns) / ns_per_s : 0);
    add(paused, {label}, row.at("paused").get<bool>() ? 1 : 0);
    const Json& state = row.at("breaker");
    if (state.at("state") != "none") {
      for (const char* one : {"closed", "half-open", "open"}) {
        add(breaker, {label, {"state", one}}, state.at("state") == one ? 1 : 0);
      }
      add(opened, {label}, number(state, "opened"));
    }
    if (row.contains("publish_to_take")) take.metric.push_back(histogram(row.at("publish_to_take"), label));
    if (row.contains("publish_to_ack")) ack.metric.push_back(histogram(row.at("publish_to_ack"), label));
  });
  for (MetricFamily* made : {&age, &paused, &breaker, &opened, &take, &ack}) families.push_back(std::move(*made));
}

}  // namespace

std::vector<MetricFamily> metric_families(const Json& document, std::uint64_t now_ns) {
  std::vector<MetricFamily> families;
  add_exchange(families, document);
  add_plain(families, of_publishers, [&document](const auto& each) {
    for (const Json& row : document.at("publishers")) {
      if (!is_anonymous(row)) each(row, named("publisher", row));
    }
  });
  add_plain(families, of_subscriptions, [&document](const auto& each) { each_subscription(document, each); });
  add_reasons(families, document);
  add_states(families, document, now_ns);
  std::erase_if(families, [](const MetricFamily& made) { return made.metric.empty(); });
  return families;
}

std::vector<MetricFamily> no_metrics() {
  std::vector<MetricFamily> families{family("ackring_up", "1: the exchange serves the bus.", MetricType::Gauge)};
  add(families.back(), {}, 0);
  return families;
}

std::string metrics_text(const std::vector<MetricFamily>& families) {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

}  // namespace ackring::tools
