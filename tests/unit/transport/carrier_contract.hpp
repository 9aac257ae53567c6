#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "common/transport/carrier.hpp"

namespace moesaic::transport {

/// Makes the carriers of one test and the addresses they meet at.
class CarrierWorld {
 public:
  virtual ~CarrierWorld() = default;
  virtual std::unique_ptr<Carrier> make(CarrierLimits limits) = 0;
  /// Another one each time.
  virtual Address address() = 0;
  std::unique_ptr<Carrier> make() { return make({}); }
};

/// A folder of its own for socket files; removed with it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "moesaic-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// What every carrier must do. Instantiated per carrier with
///   INSTANTIATE_TEST_SUITE_P(Name, CarrierContractTest, testing::Values(CarrierKind{..}),
///   kind_name)
/// in that carrier's test; the claims are in carrier_contract_test.cpp.
struct CarrierKind {
  std::string name;
  std::function<std::unique_ptr<CarrierWorld>()> make_world;
};
inline std::ostream& operator<<(std::ostream& out, const CarrierKind& kind) {
  return out << kind.name;
}
inline std::string kind_name(const testing::TestParamInfo<CarrierKind>& info) {
  return info.param.name;
}

class CarrierContractTest : public testing::TestWithParam<CarrierKind> {
 protected:
  std::unique_ptr<CarrierWorld> world_ = GetParam().make_world();
};

/// The next event within ten seconds; a failure of the test and a kWoken if there is none.
inline CarrierEvent next_event(Carrier& carrier) {
  auto event = carrier.receive(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  if (event) return std::move(*event);
  ADD_FAILURE() << event.error().what;
  return {.kind = CarrierEvent::Kind::kWoken};
}

/// The next event of that kind, others left out.
inline CarrierEvent next_of(Carrier& carrier, CarrierEvent::Kind kind) {
  for (int i = 0; i < 1000; ++i) {
    auto event = next_event(carrier);
    if (event.kind == kind || testing::Test::HasFailure()) return event;
  }
  ADD_FAILURE() << "a thousand events of other kinds";
  return {};
}

}  // namespace moesaic::transport
