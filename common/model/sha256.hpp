#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace moesaic {

/// SHA-256 of what is added piece by piece. One thread.
class Sha256 {
 public:
  Sha256();
  void add(const void* data, std::size_t bytes);
  /// The first `digits` hexadecimal digits (64 are all); ends it.
  std::string hex(std::size_t digits = 64);

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

std::string sha256_hex(std::string_view bytes);

}  // namespace moesaic
