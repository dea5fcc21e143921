#include <atomic>
#include <cstring>

#include "hot.hpp"

#if defined(_MSC_VER) && defined(APRCNN_X86_VARIANTS)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace aprcnn {

namespace {

#if defined(APRCNN_X86_VARIANTS)
#if defined(_MSC_VER)
bool runs_avx2() {
    int info[4];
    __cpuid(info, 1);
    const bool saves_ymm = (info[2] & (1 << 27)) != 0 && (_xgetbv(0) & 0x6) == 0x6;
    __cpuidex(info, 7, 0);
    return saves_ymm && (info[1] & (1 << 5)) != 0;
}
bool runs_avx512() {
    int info[4];
    __cpuidex(info, 7, 0);
    const unsigned needed = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
    return runs_avx2() && (static_cast<unsigned>(info[1]) & needed) == needed && (_xgetbv(0) & 0xe6) == 0xe6;
}
#else
bool runs_avx2() { return __builtin_cpu_supports("avx2") != 0; }
bool runs_avx512() {
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
           __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
#endif
#endif

const HotTable* find(const char* name) {
    const bool any = *name == '\0';
#if defined(APRCNN_X86_VARIANTS)
    if ((any || std::strcmp(name, "avx512") == 0) && runs_avx512()) return &hot_avx512;
    if ((any || std::strcmp(name, "avx2") == 0) && runs_avx2()) return &hot_avx2;
#endif
    if (any || std::strcmp(name, hot_plain.name) == 0) return &hot_plain;
    return nullptr;
}

std::atomic<const HotTable*>& chosen() {
    static std::atomic<const HotTable*> table{find("")};
    return table;
}

}  // namespace

const HotTable& hot() { return *chosen().load(); }

bool has_instruction_set(const char* name) { return find(name) != nullptr; }

bool choose_instruction_set(const char* name) {
    const HotTable* table = find(name);
    if (table == nullptr) return false;
    chosen() = table;
    return true;
}

}  // namespace aprcnn
