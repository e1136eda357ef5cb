"""What operators ask of builds and do to them: the other side of ``scheduler.build.VERB``."""
