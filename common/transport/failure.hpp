#pragma once

#include "common/base/result.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// kFailure: the answer to question `sequence` is this error; 0: whoever sends it knows the
/// question.
Frame make_failure(const Error& error, std::uint64_t sequence = 0);
/// The error in a kFailure; one with an unknown code is kInternal.
Error read_failure(const Frame& frame);

}  // namespace moesaic::transport
