// Random masks. One seed makes one mask: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", OOPSLA 2014, figure 17) gives 64 bits after another, each of them two numbers of 32, the lower half first.
// Its states are a multiple of one constant apart, so that a block of them is mixed at once.
#pragma once

#include <cstring>

#include "kernels.hpp"

namespace gatewise::GATEWISE_ISA {
namespace {

inline uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class Real>
void draw(const Draw& mask, Real* to) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  constexpr int64_t kBlock = 64;  // numbers
  const Real value = static_cast<Real>(mask.below > 0 ? mask.value : 0);
  const uint32_t most = static_cast<uint32_t>(mask.below - (mask.below > 0));
  uint64_t state = mask.seed;
  for (int64_t first = 0; first < mask.count; first += kBlock) {
    uint64_t words[kBlock / 2];
    for (int64_t j = 0; j < kBlock / 2; ++j) words[j] = mixed(state + (j + 1) * kGolden);
    state += kBlock / 2 * kGolden;
    uint32_t bits[kBlock];
    for (int64_t j = 0; j < kBlock / 2; ++j) {
      bits[2 * j] = static_cast<uint32_t>(words[j]);
      bits[2 * j + 1] = static_cast<uint32_t>(words[j] >> 32);
    }
    Real numbers[kBlock];
    for (int64_t j = 0; j < kBlock; ++j) numbers[j] = bits[j] <= most ? value : Real(0);
    const int64_t left = mask.count - first;
    std::memcpy(to + first, numbers, (left < kBlock ? left : kBlock) * sizeof(Real));
  }
}

}  // namespace
}  // namespace gatewise::GATEWISE_ISA
