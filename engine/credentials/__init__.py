"""What pictures' files say of themselves, which anyone can remove or forge, and no score heeds."""
