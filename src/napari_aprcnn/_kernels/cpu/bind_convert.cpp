#include "binding.hpp"

namespace aprcnn {

void bind_convert(nb::module_&) {}

}  // namespace aprcnn
