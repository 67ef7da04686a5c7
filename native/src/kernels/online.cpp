// The table of online.h for one instruction set. Compiled once per set, with BPTT_VARIANT naming it.
#include "online.h"

#include "online_chain.h"
#include "online_classic.h"
#include "online_losses.h"
#include "online_products.h"
#include "online_sums.h"
#include "online_updates.h"

namespace bptt {
namespace BPTT_VARIANT {

template <class T>
OnlineKernels<T> make_online_table() {
    return {product_for<T>, dots<T>, chain_for<T>, classic_for<T>, cross_for<T>, cross_strips<T, Descending>,
            {difference_loss<Squared, T>, difference_loss<Absolute, T>, difference_loss<Huber, T>, index_loss<T>,
             share_loss<T>},
            update<T>, descend<T>, lanes<T>};
}

}  // namespace BPTT_VARIANT

#define BPTT_JOIN_(a, b) a##b
#define BPTT_JOIN(a, b) BPTT_JOIN_(a, b)

template <class T>
const OnlineKernels<T>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)() {
    static const OnlineKernels<T> table = BPTT_VARIANT::make_online_table<T>();
    return table;
}

template const OnlineKernels<float>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)<float>();
template const OnlineKernels<double>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)<double>();

}  // namespace bptt
