#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace moesaic {

/// What went wrong, for code that must decide. Texts carry the details.
enum class Errc : std::uint8_t {
  kInvalidArgument = 1,  ///< a value from outside is malformed or out of range
  kNotFound,             ///< a named thing (file, tensor, model, expert) does not exist
  kShapeMismatch,        ///< sizes that must agree do not
  kUnsupported,          ///< understood, but not built (format, modality, parameter)
  kCorrupt,              ///< a file or frame contradicts itself or is truncated
  kIo,                   ///< the operating system refused a read, write, open or map
  kOverloaded,           ///< a bounded queue or pool is full; try again later
  kDeadlineExceeded,     ///< the time given ran out
  kCancelled,            ///< the asker has gone or asked to stop
  kUnavailable,          ///< loading, draining, or a needed part is gone
  kContextLength,        ///< prompt plus answer exceed the context
  kTooLarge,             ///< over a configured limit (bytes, pixels, counts)
  kInternal,             ///< a bug
  kExpertUnavailable,    ///< no shard that holds a needed expert answered before the deadline
};

/// One failure: `what` names the thing and the numbers, e.g.
/// `weights.bin: tensor "q_proj": 4096 bytes, 8192 expected`.
struct Error {
  Errc code{};
  std::string what;
};

template <class T>
using Result = tl::expected<T, Error>;

/// Makes the error value of any Result.
inline tl::unexpected<Error> fail(Errc code, std::string what) {
  return tl::make_unexpected(Error{code, std::move(what)});
}

/// Puts `context: ` in front of the text, keeping the code.
inline tl::unexpected<Error> fail(std::string_view context, const Error& error) {
  return tl::make_unexpected(Error{error.code, std::string(context) + ": " + error.what});
}

#define MOESAIC_CONCAT_(a, b) a##b
#define MOESAIC_CONCAT(a, b) MOESAIC_CONCAT_(a, b)

/// `MOESAIC_TRY(auto x, expr);` declares x from a Result, or returns its error from this function.
#define MOESAIC_TRY(declaration, expr)                                             \
  auto MOESAIC_CONCAT(try_, __LINE__) = (expr);                                    \
  if (!MOESAIC_CONCAT(try_, __LINE__))                                             \
    return tl::make_unexpected(std::move(MOESAIC_CONCAT(try_, __LINE__)).error()); \
  declaration = std::move(*MOESAIC_CONCAT(try_, __LINE__))

/// The same for `Result<void>`.
#define MOESAIC_CHECK(expr)                                                          \
  if (auto MOESAIC_CONCAT(try_, __LINE__) = (expr); !MOESAIC_CONCAT(try_, __LINE__)) \
  return tl::make_unexpected(std::move(MOESAIC_CONCAT(try_, __LINE__)).error())

}  // namespace moesaic
