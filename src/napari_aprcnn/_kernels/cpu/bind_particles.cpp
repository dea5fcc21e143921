#include "binding.hpp"

namespace aprcnn {

void bind_particles(nb::module_&) {}

}  // namespace aprcnn
