#define BW_NAMESPACE bw_scalar
#include "rows.inl"
