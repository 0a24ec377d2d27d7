// ackring: lock-free messaging between processes of one machine, with acks.
#pragma once

#include "ackring/bus.hpp"
#include "ackring/circuit_breaker.hpp"
#include "ackring/dead_letter.hpp"
#include "ackring/delivery.hpp"
#include "ackring/error.hpp"
#include "ackring/event_bus.hpp"
#include "ackring/inspect.hpp"
#include "ackring/limits.hpp"
#include "ackring/options.hpp"
#include "ackring/outcome.hpp"
#include "ackring/publisher.hpp"
#include "ackring/serializer.hpp"
#include "ackring/subscriber.hpp"
#include "ackring/trace_context.hpp"
