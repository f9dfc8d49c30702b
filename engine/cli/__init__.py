"""From words on a command line to requests; the only place that knows argparse."""
