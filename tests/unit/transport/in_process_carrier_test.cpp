#include "carrier_contract.hpp"
#include "common/transport/in_process.hpp"

namespace moesaic::transport {
namespace {

class InProcessWorld final : public CarrierWorld {
 public:
  std::unique_ptr<Carrier> make(CarrierLimits limits) override {
    return make_in_process_carrier(network_, limits);
  }
  Address address() override {
    return {Address::Scheme::kInProcess, "place-" + std::to_string(++last_), {}};
  }

 private:
  std::shared_ptr<InProcessNetwork> network_ = make_in_process_network();
  int last_ = 0;
};

INSTANTIATE_TEST_SUITE_P(InProcess, CarrierContractTest,
                         testing::Values(CarrierKind{
                             "InProcess", [] { return std::make_unique<InProcessWorld>(); }}),
                         kind_name);

}  // namespace
}  // namespace moesaic::transport
