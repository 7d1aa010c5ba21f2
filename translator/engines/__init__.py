"""The engines that translate, behind one interface; the judge never knows which one it judges."""
