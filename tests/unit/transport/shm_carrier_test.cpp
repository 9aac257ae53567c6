#include "common/transport/shm_carrier.hpp"

#include "carrier_contract.hpp"

namespace moesaic::transport {
namespace {

class ShmWorld final : public CarrierWorld {
 public:
  std::unique_ptr<Carrier> make(CarrierLimits limits) override {
    auto carrier = ShmCarrier::make(limits);
    return carrier ? std::move(*carrier) : nullptr;
  }
  Address address() override {
    return {Address::Scheme::kShm, folder_.file("sockets/" + std::to_string(++last_)), {}};
  }

 private:
  TemporaryFolder folder_;
  int last_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Shm, CarrierContractTest,
                         testing::Values(CarrierKind{"Shm",
                                                     [] { return std::make_unique<ShmWorld>(); }}),
                         kind_name);

}  // namespace
}  // namespace moesaic::transport
