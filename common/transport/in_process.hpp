#pragma once

#include <memory>

#include "common/transport/carrier.hpp"

namespace moesaic::transport {

/// The names that listen inside this process; shared by the carriers of all its threads.
class InProcessNetwork;
std::shared_ptr<InProcessNetwork> make_in_process_network();

/// Frames move from thread to thread; no byte is copied. Addresses: inproc://name.
std::unique_ptr<Carrier> make_in_process_carrier(std::shared_ptr<InProcessNetwork> network,
                                                 CarrierLimits limits = {});

}  // namespace moesaic::transport
