"""Images between files, astropy containers and the plain arrays that backends see."""
