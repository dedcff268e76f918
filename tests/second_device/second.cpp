// A second device for tests: its memory is the CPU's and its kernels are the CPU's, but torch keeps its tensors apart
// from the CPU's as it keeps those of a GPU apart: an operation whose tensors lie on two devices is refused, and
// nothing but an explicit copy moves data. SECOND_DEVICE_BYTES in the environment limits what it holds at once.
//
// torch's way of adding a device from outside ("PrivateUse1"): docs.pytorch.org, "Facilitating New Backend
// Integration by PrivateUse1".

#include <ATen/EmptyTensor.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <set>
#include <string>

namespace {

using at::Tensor;
constexpr auto kSecond = c10::DeviceType::PrivateUse1;
const c10::Device kFirst(kSecond, 0);

// ---- memory -------------------------------------------------------------------------------------------------------

std::atomic<size_t> held{0}, most{0};

size_t limit() {
  static const char* told = std::getenv("SECOND_DEVICE_BYTES");
  static const size_t bytes = told ? std::strtoull(told, nullptr, 10) : 0;
  return bytes;
}

struct Piece {
  c10::DataPtr memory;
  size_t bytes;
};

void release(void* context) {
  auto* piece = static_cast<Piece*>(context);
  held -= piece->bytes;
  delete piece;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const size_t after = held += bytes;
    if (limit() && after > limit()) {
      held -= bytes;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "second device: ", bytes, " bytes do not fit");
    }
    size_t seen = most.load();
    while (after > seen && !most.compare_exchange_weak(seen, after)) {
    }
    auto* piece = new Piece{c10::GetCPUAllocator()->allocate(bytes), bytes};
    return {piece->memory.get(), piece, &release, kFirst};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Memory memory;
REGISTER_ALLOCATOR(kSecond, &memory)

// ---- what torch asks of every device ------------------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kSecond; }
  c10::Device exchangeDevice(c10::Device) const override { return kFirst; }
  c10::Device getDevice() const override { return kFirst; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
};
Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// ---- tensors ------------------------------------------------------------------------------------------------------

Tensor on_cpu(const Tensor& tensor) {  // the same memory, as the CPU's
  if (!tensor.is_privateuseone()) return tensor;
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU));
}

Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>, std::optional<at::Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(type), format);
}

Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> type, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(type));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  const_cast<Tensor&>(to).resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const Tensor& tensor) { return on_cpu(tensor).item(); }

const Tensor& resize(const Tensor& tensor, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(tensor, C10_AS_INTARRAYREF_SLOW(size), format);
}

Tensor as_strided(
    const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  auto at_offset = offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt;
  return at::native::as_strided_tensorimpl(
      tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), at_offset);
}

Tensor view(const Tensor& tensor, c10::SymIntArrayRef size) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor reshape_alias(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

Tensor& set_storage(
    Tensor& tensor, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::set_storage_cpu_(
      tensor, storage, offset.expect_int(), C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

// Convolutions have an entry of their own for devices from outside, which the fallback below does not reach.
Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups) {
  TORCH_CHECK(
      weight.is_privateuseone() && (!bias || !bias->defined() || bias->is_privateuseone()),
      "convolution: expected all tensors to be on the same device, but found at least two");
  const std::optional<Tensor> added = bias && bias->defined() ? std::optional<Tensor>(on_cpu(*bias)) : std::nullopt;
  return at::convolution_symint(
             on_cpu(input), on_cpu(weight), added, stride, padding, dilation, transposed, output_padding, groups)
      .to(kFirst);
}

// ---- everything else: the CPU's kernels, after the check that a GPU's kernels make ---------------------------------

// Operations that a GPU lets mix devices too: a tensor may be indexed by indices that lie on the CPU.
const std::set<std::string> mixing = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};

void same_device(const c10::OperatorHandle& op, const Tensor& tensor) {
  // A number in a tensor without dimensions goes along everywhere, as TensorIterator has it.
  if (!tensor.defined() || tensor.is_privateuseone() || tensor.dim() == 0) return;
  TORCH_CHECK(
      false, op.operator_name().name, ": expected all tensors to be on the same device, but found at least two, ", kFirst,
      " and ", tensor.device());
}

void everything_else(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (!mixing.count(op.operator_name().name)) {
    for (const auto& value : torch::jit::last(stack, op.schema().arguments().size())) {
      if (value.isTensor()) same_device(op, value.toTensor());
      if (value.isTensorList())
        for (const Tensor& tensor : value.toTensorList()) same_device(op, tensor);
      if (value.isOptionalTensorList())
        for (const std::optional<Tensor>& tensor : value.toOptionalTensorList())
          if (tensor) same_device(op, *tensor);
      TORCH_CHECK(
          !value.isGenerator() || value.toGenerator().device().type() == kSecond, op.operator_name().name,
          ": expected a generator of ", kFirst, " but found one of the CPU");
    }
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&everything_else>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("resize_", resize);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("convolution_overrideable", convolution);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("set_.source_Storage_storage_offset", set_storage);
}

extern "C" size_t second_device_peak() { return most.load(); }
