#include "binding.hpp"

namespace aprcnn {

void bind_tree(nb::module_&) {}

}  // namespace aprcnn
