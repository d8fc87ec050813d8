// Average pooling, interpolation and other rearrangements of images: all linear.
#include "forward_ad/families.h"

namespace functx {

FUNCTX_RULES(jvp_average_pooling) {
  linear<ops::avg_pool2d, ops::avg_pool3d, ops::_adaptive_avg_pool2d, ops::_adaptive_avg_pool3d>();
  linear_in_first<ops::avg_pool2d_backward, ops::avg_pool3d_backward,
                  ops::_adaptive_avg_pool2d_backward, ops::_adaptive_avg_pool3d_backward>();
}

FUNCTX_RULES(jvp_rearranging) {
  linear<ops::pixel_shuffle, ops::pixel_unshuffle, ops::channel_shuffle, ops::im2col, ops::col2im,
         ops::affine_grid_generator>();
}

FUNCTX_RULES(jvp_upsampling) {
  linear<ops::upsample_linear1d, ops::upsample_bilinear2d, ops::_upsample_bilinear2d_aa,
         ops::upsample_bicubic2d, ops::_upsample_bicubic2d_aa, ops::upsample_trilinear3d,
         ops::upsample_nearest1d, ops::_upsample_nearest_exact1d, ops::upsample_nearest2d,
         ops::_upsample_nearest_exact2d, ops::upsample_nearest3d, ops::_upsample_nearest_exact3d>();
  linear<ops::upsample_linear1d_backward, ops::upsample_bilinear2d_backward,
         ops::_upsample_bilinear2d_aa_backward, ops::upsample_bicubic2d_backward,
         ops::_upsample_bicubic2d_aa_backward, ops::upsample_trilinear3d_backward,
         ops::upsample_nearest1d_backward, ops::_upsample_nearest_exact1d_backward,
         ops::upsample_nearest2d_backward, ops::_upsample_nearest_exact2d_backward,
         ops::upsample_nearest3d_backward, ops::_upsample_nearest_exact3d_backward>();
}

}  // namespace functx
