// The part of ONNX Runtime's C API that the library uses, declared by hand so that building needs no headers of it.
//
// `OrtApi` is a table of function pointers to which releases only append, so a slot keeps its meaning for good. The slots
// here exist since API version 18 (onnxruntime 1.18), which every newer runtime serves. The numbers are those of the public
// header include/onnxruntime/core/session/onnxruntime_c_api.h; tests/native/check_api.cpp compares them with it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kApiVersion = 18;

struct Status;
struct SessionOptions;
struct Value;
struct ShapeInfo;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct ShapeContext;

enum ErrorCode { kFail = 1, kInvalidArgument = 2 };
enum ElementType { kFloat = 1, kFloat16 = 10, kDouble = 11 };

struct Slot {
  enum {
    CreateStatus = 0,
    CreateCustomOpDomain = 26,
    CustomOpDomain_Add = 27,
    AddCustomOpDomain = 28,
    GetTensorMutableData = 51,
    GetDimensionsCount = 61,
    GetDimensions = 62,
    GetSymbolicDimensions = 63,
    GetTensorTypeAndShape = 65,
    KernelContext_GetInputCount = 88,
    KernelContext_GetInput = 90,
    KernelContext_GetOutput = 91,
    ReleaseStatus = 93,
    ReleaseTensorTypeAndShapeInfo = 99,
    ReleaseCustomOpDomain = 101,
    KernelInfoGetAttributeArray_int64 = 163,
    KernelContext_GetGPUComputeStream = 193,
    HasSessionConfigEntry = 237,
    KernelInfo_GetInputCount = 230,
    KernelInfoGetConstantInput_tensor = 249,
    ShapeInferContext_GetInputTypeShape = 268,
    ShapeInferContext_SetOutputTypeShape = 270,
    KernelContext_ParallelFor = 274,
  };
};

// A method of the table: its slot and its signature, as `api.call<Slot::X, Status*(int)>(1)`.
struct Api {
  void* slots[Slot::KernelContext_ParallelFor + 1];

  template <int slot, class Signature, class... Arguments>
  auto call(Arguments... arguments) const {
    return reinterpret_cast<Signature*>(slots[slot])(arguments...);
  }

  Status* error(ErrorCode code, const char* message) const {
    return call<Slot::CreateStatus, Status*(ErrorCode, const char*)>(code, message);
  }
  void release(Status* status) const { call<Slot::ReleaseStatus, void(Status*)>(status); }
};

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// OrtCustomOp at version 18. Members that stay null are optional.
struct CustomOp {
  uint32_t version;
  void* CreateKernel;
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void* KernelCompute;
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, size_t);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  void* GetVariadicOutputMinArity;
  void* GetVariadicOutputHomogeneity;
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  void* GetAliasMap;
  void* ReleaseAliasMap;
};

}  // namespace ort
