"""Van Cittert deconvolution as a plugin for astrogan."""
