#include "bindings/bindings.h"
#include "link/frame.h"

PYBIND11_MODULE(_native, module) {
  using namespace mindserve::bindings;
  module.doc() = "The native core.";
  module.attr("LINK_VERSION") = mindserve::link::kLinkVersion;
  RegisterErrors(module);
  RegisterLog(module);
  RegisterGateway(module);
  RegisterDirect(module);
  RegisterJson(module);
  RegisterLocalMethods(module);
  RegisterServiceCall(module);
  RegisterServices(module);
  RegisterStageRequest(module);
  RegisterStreamMethods(module);
  RegisterRuntime(module);
}
